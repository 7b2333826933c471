"""One orchestrator per database: two on one PostgreSQL server would carry each other's runs.

A SQLite file is in a home, whose lock keeps others out. On PostgreSQL a connection of its own holds an advisory lock,
which the server lets go of when that connection ends, however it ends. Invariant: who cannot hold the lock does not
serve; a connection that is lost is made anew, and the lock with it, unless somebody else has it by then.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from orchestrator.storage.database import CONNECT_S, patiently
from orchestrator.storage.faults import explained
from orchestrator.storage.location import Location
from policies.errors import UnavailableError, UsageError

_LOG = logging.getLogger(__name__)

_LOCK: Final = 7_230_002
_LOOK_S: Final = 2.0

_HOLDER = text(
    "SELECT a.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
    "WHERE l.locktype = 'advisory' AND l.classid = 0 AND l.objid = :number AND l.granted "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class Tenure:
    """The lock of one serving orchestrator. Use `hold_database`."""

    def __init__(self, location: Location, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = location.name
        # How we know a session of our own that the server still believes in after the network was cut.
        self._token = f"pht-orchestrator {secrets.token_hex(8)}"
        self._engine = _engine(location, self._token)
        self._connection: Connection | None = None
        self._clock, self._look_at = clock, 0.0

    def take(self) -> None:
        """Take the lock.

        Raises:
            UsageError: another orchestrator has it.
            UnavailableError: the database does not answer.
        """
        with explained(self._name):
            connection = self._engine.connect()
            try:
                held = self._locked(connection) or self._locked_after_our_own_ghost(connection)
            except BaseException:
                connection.close()
                raise
            if not held:
                connection.close()
        if not held:
            raise UsageError(
                f"{self._name}: another orchestrator works on this database",
                hint="Stop it first; each orchestrator needs a database of its own.",
            )
        self._connection = connection
        self._look_at = self._clock() + _LOOK_S

    def keep(self) -> None:
        """See now and then that the lock is still ours; called often. A database that is away is waited for.

        Raises:
            UsageError: another orchestrator took it while our connection was lost.
        """
        if self._clock() < self._look_at:
            return
        if self._connection is not None:
            try:
                self._connection.exec_driver_sql("SELECT 1")
            except DBAPIError:
                _LOG.warning("database_lost")
                self.release()
        if self._connection is None:
            try:
                self.take()
            except UnavailableError:
                _LOG.warning("database_away")
            else:
                _LOG.info("database_back")
        self._look_at = self._clock() + _LOOK_S

    def release(self) -> None:
        """Let go of it."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.invalidate()
            connection.close()

    def _locked(self, connection: Connection) -> bool:
        return bool(connection.scalar(text("SELECT pg_try_advisory_lock(:number)"), {"number": _LOCK}))

    def _locked_after_our_own_ghost(self, connection: Connection) -> bool:
        for pid, name in connection.execute(_HOLDER, {"number": _LOCK}).all():
            if name == self._token:
                connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        return self._locked(connection)


@contextmanager
def hold_database(
    location: Location, *, patience_s: float = 0.0, waiting: Callable[[str], None] | None = None
) -> Iterator[Callable[[], None]]:
    """Be the only orchestrator on this database; gives what is to be called now and then.

    Args:
        location: of the database; its tables need not be there yet, and stay as they are.
        patience_s: how long a server that does not answer is waited for.
        waiting: told once why, when that begins.

    Raises:
        UsageError: another one is.
        UnavailableError: the database does not answer.
    """
    if location.is_file:
        yield lambda: None
        return
    tenure = Tenure(location)
    patiently(tenure.take, patience_s, waiting)
    try:
        yield tenure.keep
    finally:
        tenure.release()


def _engine(location: Location, application: str) -> Engine:
    options = " ".join(
        f"-c {key}={value}"
        for key, value in (
            ("tcp_keepalives_idle", 10),
            ("tcp_keepalives_interval", 5),
            ("tcp_keepalives_count", 3),
        )
    )
    return create_engine(
        location.url,
        connect_args=location.arguments
        | {
            "connect_timeout": CONNECT_S,
            "application_name": application,
            "options": options,
            "tcp_user_timeout": 10_000,
        },
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
    )
