"""Files that are whole or absent: temporary file, fsync, rename, fsync of the folder.

A full disk or a folder without permission is a `StorageError` that says what to do; what stood there before stands.
"""

import errno
import os
from pathlib import Path

from policies.errors import StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file durably, replacing the one that stands there.

    Args:
        path: in a folder that exists.
        data: the whole content.
        mode: the file's permissions, whatever the umask.

    Raises:
        StorageError: the disk is full or the folder cannot be written; the old file, if any, is as before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_fault(error, path.name) from error


def move_durably(source: Path, target: Path) -> None:
    """Rename a complete, synced file within one file system, durably.

    Raises:
        StorageError: it cannot be moved.
    """
    try:
        source.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise storage_fault(error, target.name) from error


def remove_durably(path: Path) -> None:
    """Remove a file that may be there.

    Raises:
        StorageError: it is there and cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_fault(error, path.name) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_fault(error: OSError, name: str) -> StorageError:
    """Say what failed and what to do; `name` is a file's own name, never a path to an image."""
    if error.errno in _FULL:
        return StorageError(
            f"{name}: the disk is full", hint="Free disk space, then start the station again."
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return StorageError(
            f"{name}: the folder cannot be written",
            hint="Give the station's user write access to its folder.",
        )
    return StorageError(f"{name}: {error.strerror}", hint="Check the disk and the station's folder.")
