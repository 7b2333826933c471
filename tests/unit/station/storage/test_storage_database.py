"""The embedded database: one writer, durable commits, a schema that fits, faults that say what to do."""

import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

import station.audit.tables
import station.catalogue
import station.continuity.tables
import station.egress.differencing.tables
import station.egress.privacy.tables
import station.egress.records.tables
import station.egress.review.tables
import station.predictions.tables
import station.runs.clock
import station.runs.tables
import station.runs.usage
from policies.errors import StateError, StorageError
from station.storage import Base, Database, UtcTime, open_database

TABLES = (
    station.audit.tables,
    station.catalogue,
    station.continuity.tables,
    station.egress.differencing.tables,
    station.egress.privacy.tables,
    station.egress.records.tables,
    station.egress.review.tables,
    station.predictions.tables,
    station.runs.clock,
    station.runs.tables,
    station.runs.usage,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "station.db"


def count(database: Database) -> int:
    with database.read() as session:
        return session.execute(text("SELECT count(*) FROM counters")).scalar_one()


def add(database: Database, name: str) -> None:
    with database.write() as session:
        session.execute(text("INSERT INTO counters VALUES (:name, 'x', 1)"), {"name": name})


def test_the_database_is_made_private_and_opened_again(path: Path) -> None:
    database = open_database(path)
    assert path.stat().st_mode & 0o777 == 0o600
    add(database, "a")
    database.close()
    assert count(open_database(path)) == 1


def test_the_migrations_make_the_tables_that_the_code_maps(path: Path) -> None:
    assert all(TABLES)
    with open_database(path).connection() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_there_is_one_last_migration() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from station.storage.database import COMPUTE_MIGRATIONS

    config = Config()
    config.set_main_option("script_location", str(COMPUTE_MIGRATIONS))
    assert len(ScriptDirectory.from_config(config).get_heads()) == 1


def test_durable_settings_are_on(path: Path) -> None:
    database = open_database(path)
    with database.write() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert session.execute(text("PRAGMA synchronous")).scalar() == 2
        assert session.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_what_raises_is_undone(path: Path) -> None:
    database = open_database(path)

    def fail_after_writing() -> None:
        with database.write() as session:
            session.execute(text("INSERT INTO counters VALUES ('a', 'x', 1)"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_writing()
    assert count(database) == 0


def test_a_reader_sees_one_state_and_does_not_write(path: Path) -> None:
    database = open_database(path)
    add(database, "a")
    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM counters")).scalar() == 1
        add(database, "b")
        assert session.execute(text("SELECT count(*) FROM counters")).scalar() == 1
    assert count(database) == 2
    with pytest.raises(StorageError), database.read() as session:
        session.execute(text("INSERT INTO counters VALUES ('c', 'x', 1)"))
    assert count(database) == 2


def test_writers_take_turns(path: Path) -> None:
    database = open_database(path)
    add(database, "n")

    def raise_by_one() -> None:
        for _ in range(20):
            with database.write() as session:
                value = session.execute(text("SELECT value FROM counters WHERE name = 'n'")).scalar_one()
                session.execute(
                    text("UPDATE counters SET value = :value WHERE name = 'n'"), {"value": value + 1}
                )

    threads = [threading.Thread(target=raise_by_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.execute(text("SELECT value FROM counters WHERE name = 'n'")).scalar_one() == 81


def test_a_write_inside_a_write_is_a_fault_and_not_a_deadlock(path: Path) -> None:
    database = open_database(path)
    with pytest.raises(StateError, match="inside another"), database.write(), database.write():
        pass
    add(database, "still-works")


def test_broken_rules_of_a_table_reach_the_caller(path: Path) -> None:
    database = open_database(path)
    add(database, "a")
    with pytest.raises(IntegrityError):
        add(database, "a")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE counters SET value = 0",
        "UPDATE counters SET scope = 'other'",
        "DELETE FROM counters",
        "UPDATE orders SET envelope = x'00'",
        "UPDATE orders SET failures = failures - 1",
        "DELETE FROM orders",
        "UPDATE releases SET reply = x'00'",
        "DELETE FROM releases",
        "UPDATE audit_events SET body = x'00'",
        "DELETE FROM audit_events",
        "UPDATE egress_ledger SET digest = 'x'",
        "DELETE FROM egress_ledger",
    ],
)
def test_what_only_grows_cannot_be_taken_back(path: Path, statement: str) -> None:
    database = open_database(path)
    with database.write() as session:
        session.execute(text("INSERT INTO counters VALUES ('a', 'x', 1)"))
        session.execute(text("INSERT INTO audit_events VALUES (1, x'7b7d', 'd')"))
        session.execute(text("INSERT INTO egress_ledger VALUES (1, x'7b7d', 'd')"))
        session.execute(
            text(
                "INSERT INTO orders (order_digest, order_id, envelope, policy_id, policy_version, state, decision, "
                "correlation_id, failures, started, first_seen, changed) "
                "VALUES ('o', 'i', x'01', 'p', 1, 'seen', 'none', 'c', 1, 0, 't', 't')"
            )
        )
        session.execute(
            text(
                "INSERT INTO releases (order_digest, round, stage, policy_id, reply, ledger_seq, recorded) "
                "VALUES ('o', 1, 'train', 'p', x'01', 1, 't')"
            )
        )
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(text(statement))


def test_a_newer_schema_is_refused(path: Path) -> None:
    open_database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StateError, match="newer version") as caught:
        open_database(path)
    assert caught.value.hint


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"patients,images\n" * 1000)
    with pytest.raises(StateError, match="not a database"):
        open_database(path)


def test_a_missing_folder_is_a_storage_fault(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        open_database(tmp_path / "missing" / "station.db")


def test_a_full_disk_is_a_storage_fault_and_changes_nothing(path: Path) -> None:
    database = open_database(path)
    with database.write() as session:
        pages = session.execute(text("PRAGMA page_count")).scalar_one()
        session.execute(text(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(StorageError, match="full") as caught, database.write() as session:
        session.execute(text("INSERT INTO counters VALUES ('a', :scope, 1)"), {"scope": "x" * 100_000})
    assert "Free disk space" in caught.value.hint
    assert count(database) == 0


def test_a_commit_survives_sigkill(path: Path) -> None:
    open_database(path).close()
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom sqlalchemy import text\n"
        "from station.storage import open_database\ndatabase = open_database(Path(sys.argv[1]))\n"
        "with database.write() as session:\n"
        "    session.execute(text(\"INSERT INTO counters VALUES ('kept', 'x', 1)\"))\n"
        "with database.write() as session:\n"
        "    session.execute(text(\"INSERT INTO counters VALUES ('lost', 'x', 1)\"))\n"
        "    session.flush()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    with open_database(path).read() as session:
        assert session.execute(text("SELECT name FROM counters")).scalars().all() == ["kept"]


def test_moments_are_stored_in_utc_and_in_order() -> None:
    kind = UtcTime()
    moment = datetime(2026, 11, 22, 4, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    stored = kind.process_bind_param(moment, None)
    assert stored == "2026-11-22T03:00:00.000005Z"
    assert kind.process_result_value(stored, None) == moment.astimezone(UTC)
    with pytest.raises(ValueError, match="time zone"):
        kind.process_bind_param(datetime(2026, 1, 1), None)  # noqa: DTZ001 - what is refused
