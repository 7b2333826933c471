"""One orchestrator per home: a lock that the kernel lets go of when its holder dies, however it dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.settings import Home
from policies.errors import StorageError, UsageError

_FILE = "lock"


@contextmanager
def hold_home(home: Home) -> Iterator[None]:
    """Be the only orchestrator on this home.

    Raises:
        UsageError: another one runs on it.
        StorageError: the home cannot be written.
    """
    try:
        home.run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(home.run / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"{home.path}: cannot be written ({error.strerror})") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError("an orchestrator runs on this home already", hint="Stop it first.") from error
        yield
    finally:
        os.close(descriptor)


def is_held(home: Home) -> bool:
    """Whether an orchestrator runs on this home."""
    try:
        with (home.run / _FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
