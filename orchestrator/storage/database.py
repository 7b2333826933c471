"""Opens the database, brings its tables up to date, and gives transactions.

Knows no use case. SQLite in WAL mode with full synchronisation: what was answered to a peer survives a power cut.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from policies.errors import StateError

_READING = "pht_reading"
_MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """Transactions over one SQLite file; safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = create_engine(f"sqlite:///{path}")
        event.listen(self._engine, "connect", _prepare_connection)
        event.listen(self._engine, "begin", _begin)
        self._writing = sessionmaker(self._engine, expire_on_commit=False)
        self._reading = sessionmaker(
            self._engine.execution_options(**{_READING: True}), expire_on_commit=False
        )

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction that may write: committed at the end, rolled back on any exception."""
        with self._writing.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction that sees one state and waits for no writer."""
        with self._reading.begin() as session:
            yield session

    def migrate(self) -> None:
        """Bring the tables to this version's form.

        Raises:
            StateError: the file is not ours, damaged, or written by a later version.
        """
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.set_main_option("path_separator", "os")
        try:
            with self._engine.connect() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except (DatabaseError, OperationalError) as error:
            raise StateError(
                f"{self.path.name}: cannot be opened as the orchestrator's database",
                hint="Restore it from a backup, or start with a new home.",
            ) from error
        except CommandError as error:
            raise StateError(
                f"{self.path.name}: was written by a later version of this program",
                hint="Install that version.",
            ) from error

    def close(self) -> None:
        """Drop all connections."""
        self._engine.dispose()


def open_database(path: Path) -> Database:
    """Open (and make, where absent) the database.

    Raises:
        StateError: as in `Database.migrate`.
    """
    database = Database(path)
    database.migrate()
    return database


def _prepare_connection(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own type
    # The driver would begin transactions by itself, lazily; we say when, and which.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # Who will write says so at once: two that read first and write later would deadlock.
    reading = connection.get_execution_options().get(_READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
