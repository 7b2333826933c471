"""From every earlier version to this one, with content, on both databases: nothing lost, never half of it, no way back.

`tests/recorded_databases` holds each version as it was; a new version of the tables records the one before it
(`record.py` there says how).
"""

import multiprocessing
import os
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres_kit import PostgresServer

from orchestrator.registry.access import Access, Role
from orchestrator.storage import open_database
from orchestrator.storage.database import Database, make_engine
from orchestrator.storage.location import Location
from orchestrator.storage.tables import Base
from orchestrator.storage.upgrading import head, known_revisions

RECORDED = Path(__file__).parents[2] / "recorded_databases"
EARLIER = known_revisions()[:-1]
FORK = multiprocessing.get_context("fork")

Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(params=EARLIER)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def old(place: Location, version: str, request: pytest.FixtureRequest) -> Location:
    """A database as that version left it."""
    load_recorded(place, version, request)
    return place


def load_recorded(place: Location, version: str, request: pytest.FixtureRequest) -> None:
    if place.is_file:
        with closing(sqlite3.connect(place.path)) as connection:
            connection.executescript((RECORDED / f"{version}.sqlite.sql").read_text("utf-8"))
        return
    server: PostgresServer = request.getfixturevalue("server")
    with server.connect(place.url.database or "", user="pht") as connection:
        connection.execute((RECORDED / f"{version}.postgresql.sql").read_bytes())


def stored(place: Location) -> tuple[str, Rows]:
    """The version, and every row of every table, as they are; without our own code."""
    engine = make_engine(place)
    try:
        with engine.connect() as connection:
            metadata = sa.MetaData()
            metadata.reflect(connection)
            rows = {
                table.name: [dict(row) for row in connection.execute(sa.select(table)).mappings()]
                for table in metadata.sorted_tables
            }
    finally:
        engine.dispose()
    return rows.pop("alembic_version")[0]["version_num"], rows


def _lost(before: Rows, after: Rows) -> list[str]:
    """What of the earlier content is not there any more; a column that was added is none of it."""
    missing = []
    for table, rows in before.items():
        kept = after.get(table, [])
        missing += [
            f"{table}: {row}" for row in rows if not any(row.items() <= other.items() for other in kept)
        ]
        if len(rows) != len(after.get(table, [])):
            missing.append(f"{table}: {len(rows)} rows")
    return missing


def test_every_earlier_version_is_recorded() -> None:
    assert EARLIER[0] == "0001"
    for version in EARLIER:
        for dialect in ("sqlite", "postgresql"):
            assert (RECORDED / f"{version}.{dialect}.sql").is_file(), f"record {version}: see record.py"


def test_an_earlier_version_becomes_this_one_with_nothing_lost(old: Location, version: str) -> None:
    found, before = stored(old)
    assert found == version
    assert all(len(rows) == 3 for rows in before.values())
    database = open_database(old)
    found, after = stored(old)
    assert found == head()
    assert _lost(before, after) == []
    with database.reading() as session:
        assert compare_metadata(MigrationContext.configure(session.connection()), Base.metadata) == []
    # Numbers that the database gives go on, and what an earlier version kept as evidence still stays.
    Access(database).new_token(Role.BOARD, "after")
    if "statement_forks" in before:
        with pytest.raises(sa.exc.IntegrityError, match="evidence stays"), database.transaction() as session:
            session.execute(sa.text("DELETE FROM statement_forks"))
    database.close()


def test_the_comparison_sees_what_is_lost() -> None:
    rows: Rows = {"t": [{"a": 1, "b": b"x"}]}
    assert _lost(rows, {"t": [{"a": 1, "b": b"x", "c": None}]}) == []
    assert _lost(rows, {"t": [{"a": 1, "b": b"y"}]}) != []
    assert _lost(rows, {}) != []
    assert _lost(rows, {"t": [{"a": 1, "b": b"x"}] * 2}) != []


def _migrate_and_die(location: Location, statements: int) -> None:
    """Migrate; SIGKILL before the n-th statement that changes anything."""
    left = [statements]

    def before_statement(*arguments: Any) -> None:
        if re.match(r"\s*(CREATE|ALTER|DROP|INSERT|UPDATE|DELETE|COMMIT)", str(arguments[2])):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    database = Database(location)
    sa.event.listen(database._engine, "before_cursor_execute", before_statement)
    sa.event.listen(database._engine, "commit", lambda _: before_statement(0, 0, "COMMIT"))
    database.migrate()
    database.close()
    os._exit(0)


def test_a_kill_at_any_statement_leaves_old_or_new(place: Location, request: pytest.FixtureRequest) -> None:
    """Through all versions at once, from the first."""
    load_recorded(place, EARLIER[0], request)
    state = stored(place)
    ends = []
    # A kill is the same at every one; on SQLite each is tried, on the server, which takes longer, each seventh.
    stride = 1 if place.is_file else 7
    for step in range(0, 400, stride):
        process = FORK.Process(target=_migrate_and_die, args=(place, step))
        process.start()
        process.join(120)
        ends.append(process.exitcode)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        assert stored(place) == state, f"half a migration after statement {step}"
    assert ends[-1] == 0
    assert len(ends) * stride > 15, "a statement each"
    version, rows = stored(place)
    assert version == head()
    assert _lost(state[1], rows) == []
