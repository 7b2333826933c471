"""SQLite in WAL mode: many readers, one writer, one transaction per use case.

`Database.write` takes the writer's lock and begins IMMEDIATE, so what a transaction read is still true when it
commits; a commit is on disk when it returns (`synchronous=FULL`). `Database.read` sees one consistent state and cannot
write. `open_database` brings the schema up to date and refuses one that is newer than this program.

Invariant: a fault of the disk is a `StorageError`, a damaged or foreign file a `StateError`; SQLAlchemy's own operational errors
do not leave this module. Integrity errors do: they say that a caller broke a rule of a table.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, IntegrityError, ProgrammingError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from policies.errors import PhtError, StateError, StorageError
from station.storage.files import storage_fault

COMPUTE_MIGRATIONS: Final = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_S: Final = 15.0


class Database:
    """One SQLite file. Make it with `open_database`.

    Args:
        path: the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            raise storage_fault(error, path.name) from error
        self._writer = _engine(path, begin="BEGIN IMMEDIATE", read_only=False)
        self._reader = _engine(path, begin="BEGIN", read_only=True)
        self._lock = threading.Lock()
        self._here = threading.local()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open one consistent view; rows stay readable after it closes.

        Raises:
            StorageError: the file cannot be read.
            StateError: the file is damaged.
        """
        with (
            _mapped_faults(self.path.name),
            Session(self._reader, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session
            session.expunge_all()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Run one transaction as the only writer; it is durable when the block ends and undone when it raises.

        Raises:
            StorageError: the disk is full, or another process holds the database too long.
            StateError: the file is damaged, or this thread is already inside a write.
        """
        if getattr(self._here, "writing", False):
            raise StateError("a write transaction was begun inside another one")
        with self._lock:
            self._here.writing = True
            try:
                with (
                    _mapped_faults(self.path.name),
                    Session(self._writer, expire_on_commit=False) as session,
                    session.begin(),
                ):
                    yield session
            finally:
                self._here.writing = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Open the writer's bare connection in one transaction, for migrations."""
        with self._lock, _mapped_faults(self.path.name), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection; the file can be copied or removed afterwards."""
        self._writer.dispose()
        self._reader.dispose()


def open_database(path: Path, migrations: Path = COMPUTE_MIGRATIONS) -> Database:
    """Open a database and bring its schema up to date, in one transaction.

    Args:
        path: the SQLite file, made when missing (0600).
        migrations: an Alembic script folder; the station's compute database unless told.

    Raises:
        StateError: the schema is newer than this program, or the file is not a database of ours.
        StorageError: the file cannot be made or written.
    """
    database = Database(path)
    try:
        _upgrade(database, migrations)
    except PhtError:
        database.close()
        raise
    return database


def _upgrade(database: Database, migrations: Path) -> None:
    config = Config()
    # Alembic reads the value through ConfigParser, where a percent sign is syntax.
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    with database.connection() as connection:
        current = set(MigrationContext.configure(connection).get_current_heads())
        if current - known:
            raise StateError(
                f"{database.path.name}: was written by a newer version of this program",
                hint="Install the version that wrote it, or restore a backup from before.",
            )
        if current == set(scripts.get_heads()):
            return
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _engine(path: Path, *, begin: str, read_only: bool) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_TIMEOUT_S, "isolation_level": None, "check_same_thread": False},
    )

    def configure(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")
        if read_only:
            connection.execute("PRAGMA query_only=ON")
        else:
            connection.execute("PRAGMA journal_mode=WAL")

    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", start)
    return engine


@contextmanager
def _mapped_faults(name: str) -> Iterator[None]:
    try:
        yield
    except (IntegrityError, ProgrammingError):
        raise
    except DatabaseError as error:
        raise _fault(error.orig, name) from error
    except sqlite3.DatabaseError as error:
        raise _fault(error, name) from error


def _fault(cause: BaseException | None, name: str) -> PhtError:
    reason = getattr(cause, "sqlite_errorname", "")
    if reason.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StateError(f"{name}: is damaged or is not a database", hint="Restore it from a backup.")
    if reason.startswith("SQLITE_FULL"):
        return StorageError(
            f"{name}: the disk is full", hint="Free disk space, then start the station again."
        )
    if reason.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StorageError(
            f"{name}: another process keeps it locked", hint="Stop the other process, then try again."
        )
    if reason.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return StorageError(
            f"{name}: cannot be written", hint="Give the station's user write access to its folder."
        )
    if reason.startswith("SQLITE_ERROR"):
        return StateError(
            f"{name}: does not hold the tables of this version", hint="Restore it from a backup."
        )
    return StorageError(f"{name}: cannot be read or written", hint="Check the disk and the station's folder.")
