"""Writing files so that a crash leaves the old one or the new one, never half of either; and taking turns.

Knows nothing of what is written.
"""

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from policies.errors import StorageError


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file as temp + fsync + rename + fsync of the folder; missing folders are made.

    Raises:
        StorageError: it cannot be written; what was there before is untouched.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                Path(temporary).unlink()
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise StorageError(
                f"{path.name}: the disk is full", hint="Free disk space, then try again."
            ) from error
        raise StorageError(
            f"{path.name}: cannot be written ({error.strerror})",
            hint="Look at the owner and mode of the folder.",
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename or a removal in a folder durable.

    Raises:
        OSError: the folder is gone or the disk fails.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Let one process at a time do something; waits for its turn, and a process that dies gives its turn back.

    Raises:
        StorageError: the lock file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(
            f"{path.name}: cannot be made ({error.strerror})",
            hint="Look at the owner and mode of the folder.",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
