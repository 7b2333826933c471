"""Opens the database, brings its tables up to date, and gives transactions.

Knows no use case. Invariants, on SQLite and PostgreSQL alike: one transaction writes at a time, so what it read is still
true when it commits, and none fails because of another; who reads sees one state and waits for no writer; what was
committed survives a power cut; an error of the driver is one of ours, and leaves nothing half done.

On SQLite that is WAL mode with `BEGIN IMMEDIATE`; on PostgreSQL a writer first takes an advisory lock of its
transaction, and a reader's transaction is repeatable-read. A connection that was lost is replaced; the transaction that
lost it is an error, which its caller's client repeats.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.orm import Session, sessionmaker

from orchestrator.storage import upgrading
from orchestrator.storage.faults import explained
from orchestrator.storage.location import Location, file_location
from policies.errors import UnavailableError

WRITER_WAIT_S: Final = 10
"""How long a writer waits for the one before it."""
CONNECT_S: Final = 5
_READING: Final = "pht_reading"
_WRITER_LOCK: Final = 7_230_001
"""Of a transaction, in PostgreSQL: advisory locks are numbers, per database."""

_SERVER_OPTIONS: Final = {
    "timezone": "UTC",
    "lock_timeout": f"{WRITER_WAIT_S}s",
    # A writer whose machine vanished must not keep the others out.
    "idle_in_transaction_session_timeout": "300s",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
_PRAGMAS: Final = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    f"busy_timeout={WRITER_WAIT_S * 1000}",
)


class Database:
    """Transactions over one database; safe to use from several threads and processes."""

    def __init__(self, location: Location | Path) -> None:
        self.location = file_location(location) if isinstance(location, Path) else location
        self._engine = make_engine(self.location)
        self._writing = sessionmaker(self._engine, expire_on_commit=False)
        self._reading = sessionmaker(
            self._engine.execution_options(**{_READING: True}), expire_on_commit=False
        )

    @property
    def name(self) -> str:
        """How messages call it."""
        return self.location.name

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction that may write: committed at the end, rolled back on any exception.

        Raises:
            StorageError, UnavailableError, StateError: see `orchestrator.storage.faults`; nothing was changed, but for a
                connection that was lost during the commit, where nobody can know.
        """
        with explained(self.name), self._writing.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction that sees one state, changes nothing and waits for no writer.

        Raises:
            UnavailableError, StorageError, StateError: as for `transaction`.
        """
        with explained(self.name), self._reading.begin() as session:
            yield session

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A bare connection in one transaction that writes, for migrations and copies."""
        with explained(self.name), self._engine.begin() as connection:
            yield connection

    def migrate(self) -> None:
        """Bring the tables to this version's form: all of it or nothing.

        Raises:
            StateError: the database is not ours, damaged, or written by a later version.
            UnavailableError, StorageError: it cannot be reached or written.
        """
        with explained(self.name):
            with self._engine.execution_options(**{_READING: True}).begin() as connection:
                if upgrading.is_current(connection, self.name):
                    return
            with self._engine.begin() as connection:
                upgrading.upgrade(connection, self.name)

    def revision(self) -> str | None:
        """Return which version of the tables stands; None where there are none."""
        with self.reading() as session:
            return upgrading.revision(session.connection())

    def close(self) -> None:
        """Drop all connections."""
        self._engine.dispose()


def open_database(
    location: Location | Path, *, patience_s: float = 0.0, waiting: Callable[[str], None] | None = None
) -> Database:
    """Open (and make, where absent) the database.

    Args:
        location: a SQLite file, or what `location_of` returned.
        patience_s: how long a server that does not answer is waited for.
        waiting: told once why, when that begins.

    Raises:
        StateError, UnavailableError, StorageError: as in `Database.migrate`.
    """
    database = Database(location)
    try:
        patiently(database.migrate, patience_s, waiting)
    except BaseException:
        database.close()
        raise
    return database


def patiently(
    call: Callable[[], None], patience_s: float, waiting: Callable[[str], None] | None = None
) -> None:
    """Call until the database answers.

    Args:
        call: what needs it.
        patience_s: how long a server that does not answer is waited for.
        waiting: told once why, when that begins.

    Raises:
        UnavailableError: it does not answer; and what else `call` raises.
    """
    end = time.monotonic() + patience_s
    pause_s = 0.1
    while True:
        try:
            call()
        except UnavailableError as error:
            if time.monotonic() + pause_s > end:
                raise
            if waiting is not None:
                waiting(error.message)
                waiting = None
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 2.0)
        else:
            return


def make_engine(location: Location) -> Engine:
    """Return an engine whose transactions begin as this module says."""
    if location.is_file:
        engine = create_engine(location.url)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    options = " ".join(f"-c {key}={value}" for key, value in _SERVER_OPTIONS.items())
    engine = create_engine(
        location.url,
        connect_args=location.arguments
        | {
            "options": options,
            "connect_timeout": CONNECT_S,
            "application_name": "pht-orchestrator",
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
            # Prepared statements outlive neither a restart nor a connection pooler in between.
            "prepare_threshold": None,
        },
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=25,
        pool_timeout=WRITER_WAIT_S,
        isolation_level="READ COMMITTED",
        hide_parameters=True,
    )
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own type
    # The driver would begin transactions by itself, lazily; we say when, and which.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # Who will write says so at once: two that read first and write later would deadlock.
    reads = _reads(connection)
    connection.exec_driver_sql(f"PRAGMA query_only={'ON' if reads else 'OFF'}")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _begin_postgresql(connection: Connection) -> None:
    if _reads(connection):
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    else:
        # Read committed: each statement sees what was committed when it began, and nobody commits beside us.
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _WRITER_LOCK})


def _reads(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get(_READING, False))
