"""One process at a time works on an intake: a lock on its folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from policies.errors import StateError


@contextmanager
def sole_process(root: Path) -> Iterator[None]:
    """Hold intake's folder for as long as the block runs.

    Raises:
        StateError: the folder is not there, or another process works on it.
    """
    try:
        descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(
            f"intake's folder cannot be opened ({error.strerror})", hint="Run the station's init."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(
                "another process works on this intake", hint="Stop the station's service first."
            ) from None
        yield
    finally:
        os.close(descriptor)
