"""Transactions on SQLite and on PostgreSQL: all or nothing, one writer at a time, readers that wait for nobody."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from orchestrator_site import weights
from sqlalchemy import func, select, text
from storage_kit import ALICE, Desk

from orchestrator.registry.access import Access, Role
from orchestrator.services import open_services
from orchestrator.settings import Home
from orchestrator.storage import BlobGrant, Database, OrderRow, TokenRow, open_database
from orchestrator.storage.dialects import insert_missing
from orchestrator.storage.location import Location
from orchestrator.storage.tables import Base
from policies.documents import digest_of
from policies.errors import RefusedError, StateError, UnavailableError

FORK = multiprocessing.get_context("fork")
PATIENCE_S = 120.0


def _granted(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(BlobGrant)) or 0


def _in_processes(work: Callable[..., None], *arguments: tuple[object, ...]) -> list[int | None]:
    """Run `work` in a process per tuple of arguments; return how each ended."""
    processes = [FORK.Process(target=work, args=given) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_S)
    return [process.exitcode for process in processes]


def test_the_migrations_make_the_models(place: Location) -> None:
    database = open_database(place)
    with database.reading() as session:
        assert compare_metadata(MigrationContext.configure(session.connection()), Base.metadata) == []
    database.close()


def test_what_raises_leaves_nothing(place: Location) -> None:
    database = open_database(place)

    def write_and_raise() -> None:
        with database.transaction() as session:
            insert_missing(session, BlobGrant, digest=digest_of(b"a"), scope="bundle")
            session.flush()
            raise KeyError

    with pytest.raises(KeyError):
        write_and_raise()
    assert _granted(database) == 0
    database.close()


def test_a_row_that_is_there_stays(place: Location) -> None:
    database = open_database(place)
    with database.transaction() as session:
        given = [insert_missing(session, BlobGrant, digest=digest_of(b"a"), scope="bundle") for _ in range(2)]
    assert given == [True, False]
    assert _granted(database) == 1
    database.close()


def test_who_reads_writes_nothing(place: Location) -> None:
    database = open_database(place)
    with pytest.raises(UnavailableError, match="read"), database.reading() as session:
        session.add(BlobGrant(digest=digest_of(b"a"), scope="bundle"))
    assert _granted(database) == 0
    with database.transaction() as session:
        session.add(BlobGrant(digest=digest_of(b"a"), scope="bundle"))
    assert _granted(database) == 1
    database.close()


def test_who_reads_sees_one_state_and_waits_for_no_writer(place: Location) -> None:
    database = open_database(place)
    count = select(func.count()).select_from(BlobGrant)
    with database.reading() as before:
        assert before.scalar(count) == 0
        with database.transaction() as writing:
            writing.add(BlobGrant(digest=digest_of(b"a"), scope="bundle"))
            writing.flush()
            assert _granted(database) == 0
        assert before.scalar(count) == 0
    assert _granted(database) == 1
    database.close()


def _raise_each_time(location: Location, times: int) -> None:
    database = open_database(location)
    for _ in range(times):
        with database.transaction() as session:
            row = session.get_one(TokenRow, 1)
            row.name = str(int(row.name) + 1)
    database.close()
    os._exit(0)


def test_what_a_writer_read_is_still_true_when_it_commits(place: Location) -> None:
    """Four processes read a number and write one more: none is lost."""
    database = open_database(place)
    Access(database).new_token(Role.BOARD, "0")
    # A connection must not be shared with a child.
    database.close()
    assert _in_processes(_raise_each_time, *[(place, 15)] * 4) == [0] * 4
    with database.reading() as session:
        assert session.get_one(TokenRow, 1).name == "60"
    database.close()


def _accept(home: Path, envelope: bytes, order_taken: Path) -> None:
    services = open_services(Home(home))
    try:
        services.orders.accept(ALICE, envelope)
    except RefusedError as error:
        order_taken.with_suffix(f".{error.code}").touch()
    else:
        order_taken.with_suffix(".accepted").touch()
    services.close()
    os._exit(0)


def test_of_orders_with_one_id_exactly_one_is_taken(desk: Desk, tmp_path: Path) -> None:
    desk.services.bundles.put(ALICE, "trivial", "1.0.0", desk.index().encode())
    desk.keep(weights())
    number = digest_of(b"an order")[7:39]
    orders = [desk.order(order_id=number, rounds=rounds) for rounds in (1, 2, 3)]
    home = desk.services.home.path
    desk.services.database.close()
    ends = _in_processes(
        _accept, *[(home, envelope, tmp_path / str(index)) for index, envelope in enumerate(orders)]
    )
    assert ends == [0] * 3
    assert sorted(path.suffix for path in tmp_path.glob("?.*")) == [
        ".ORDER_SPENT",
        ".ORDER_SPENT",
        ".accepted",
    ]
    with desk.services.database.reading() as session:
        assert len(session.scalars(select(OrderRow)).all()) == 1
    assert len(list(desk.services.home.runs.iterdir())) == 1, "the others left no run"


def test_a_new_database_is_made_by_one_of_many(place: Location) -> None:
    def migrate() -> None:
        open_database(place).close()
        os._exit(0)

    assert _in_processes(migrate, *[()] * 4) == [0] * 4
    database = open_database(place)
    assert database.revision() is not None
    database.close()


def _die_in_a_transaction(location: Location) -> None:
    database = open_database(location)
    with database.transaction() as session:
        session.add(BlobGrant(digest=digest_of(b"a"), scope="bundle"))
        session.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_writer_that_dies_leaves_nothing_and_blocks_nobody(place: Location) -> None:
    database = open_database(place)
    database.close()
    assert _in_processes(_die_in_a_transaction, (place,)) == [-signal.SIGKILL]
    assert _granted(database) == 0
    with database.transaction() as session:
        session.add(BlobGrant(digest=digest_of(b"b"), scope="bundle"))
    assert _granted(database) == 1
    database.close()


def test_a_writer_that_waits_too_long_is_told_so(place: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.storage.database._PRAGMAS", ("foreign_keys=ON", "busy_timeout=200"))
    monkeypatch.setitem(_server_options(), "lock_timeout", "200ms")
    database = open_database(place)
    caught: list[Exception] = []

    def write() -> None:
        try:
            with database.transaction() as session:
                session.execute(text("SELECT 1"))
        except UnavailableError as error:
            caught.append(error)

    with database.transaction() as standing:
        standing.execute(text("SELECT 1"))
        thread = threading.Thread(target=write)
        thread.start()
        thread.join(PATIENCE_S)
    assert len(caught) == 1
    database.close()


def _server_options() -> dict[str, str]:
    from orchestrator.storage import database

    return database._SERVER_OPTIONS


def test_a_later_version_is_refused(place: Location) -> None:
    database = open_database(place)
    with database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(StateError, match="later version"):
        open_database(place)
