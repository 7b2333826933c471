"""What a driver's error means to us: a full disk, a database that is away, one that is damaged.

The driver's own text never leaves here: it may quote a statement with its values.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from policies.errors import PhtError, StateError, StorageError, UnavailableError, UsageError

AGAIN: Final = "Nothing was changed. Try again in a moment."

_FULL: Final = frozenset({sqlite3.SQLITE_FULL})
_READ_ONLY: Final = frozenset({sqlite3.SQLITE_READONLY})
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DISK: Final = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM})
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_STATE_FULL: Final = frozenset({"53100"})
_STATE_READ_ONLY: Final = frozenset({"25006"})
_STATE_AGAIN: Final = frozenset({"40001", "40P01", "55P03", "57014", "25P03"})
_CLASSES_AWAY: Final = frozenset({"08", "53", "57"})
_CLASS_REFUSED: Final = "28"
_NO_DATABASE: Final = "3D000"


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn a driver's errors into ours; a broken rule of a table (`IntegrityError`) goes through as it is.

    Args:
        name: how messages call the database.

    Raises:
        StorageError: the disk under the database is full or fails.
        UnavailableError: it does not answer, takes no changes now, or others are at it too long.
        StateError: it is damaged, or not ours.
    """
    try:
        yield
    except IntegrityError:
        raise
    except DataError as error:
        raise UsageError("a value does not fit into the database") from error
    except PoolTimeoutError as error:
        raise UnavailableError(f"{name}: too many are at the database at once", hint=AGAIN) from error
    except DBAPIError as error:
        raise _meaning(error, name) from error


def _meaning(error: DBAPIError, name: str) -> PhtError:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(code, int):
        return _of_sqlite(code & 0xFF, name)
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(state, str):
        return _of_postgresql(state, name)
    pgconn = getattr(error.orig, "pgconn", None)
    if (
        pgconn is not None
        and not error.connection_invalidated
        and (pgconn.needs_password or pgconn.used_password)
    ):
        return _refused(name)
    if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
        # No connection came about, or it ended before the server could say why.
        return UnavailableError(
            f"{name}: does not answer",
            hint="See that the server runs; its log says why it refuses. Whoever waits tries again by themselves.",
        )
    return StateError(
        f"{name}: cannot be opened as the orchestrator's database",
        hint="Restore it from a backup, or start with a new home.",
    )


def _of_sqlite(code: int, name: str) -> PhtError:
    if code in _FULL:
        return StorageError(f"{name}: the disk is full", hint="Nothing was changed. Free disk space.")
    if code in _READ_ONLY:
        return UnavailableError(
            f"{name}: can only be read", hint="Nothing was changed. Look at the file's owner, mode and disk."
        )
    if code in _BUSY:
        return UnavailableError(f"{name}: others are writing", hint=AGAIN)
    if code in _DISK:
        return StorageError(f"{name}: cannot be read or written", hint="Look at the disk and the folder.")
    return StateError(
        f"{name}: cannot be opened as the orchestrator's database"
        + (" (damaged)" if code in _DAMAGED else ""),
        hint="Restore it from a backup, or start with a new home.",
    )


def _of_postgresql(state: str, name: str) -> PhtError:
    if state in _STATE_FULL:
        return StorageError(f"{name}: its disk is full", hint="Nothing was changed. Free disk space there.")
    if state in _STATE_READ_ONLY:
        return UnavailableError(
            f"{name}: takes no changes now (read-only)",
            hint="Nothing was changed. Name the server that writes, not a standby.",
        )
    if state in _STATE_AGAIN:
        return UnavailableError(f"{name}: others are at the database", hint=AGAIN)
    if state[:2] == _CLASS_REFUSED:
        return _refused(name)
    if state == _NO_DATABASE:
        return UnavailableError(f"{name}: there is no such database", hint="Make it with `createdb`.")
    if state[:2] in _CLASSES_AWAY:
        return UnavailableError(
            f"{name}: does not answer",
            hint="See that the server runs; its log says why it refuses. Whoever waits tries again by themselves.",
        )
    return StateError(
        f"{name}: cannot be used as the orchestrator's database",
        hint="Its tables are not ours, or its user may not use them.",
    )


def _refused(name: str) -> PhtError:
    return UnavailableError(
        f"{name}: refuses our user or password",
        hint="See database.url and database.password_file, and the server's pg_hba.conf.",
    )
