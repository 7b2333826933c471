"""Files that are whole or absent: temporary file, fsync, rename, fsync of the folder.

A full disk or a folder without permission is a `StorageError` that says what to do; what stood there before stands.
"""

import errno
import os
from pathlib import Path

from policies import files
from policies.errors import StorageError
from policies.files import sync_folder

__all__ = ["move_durably", "remove_durably", "storage_fault", "sync_folder", "write_atomically"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file durably, replacing the one that stands there; the station's files are its owner's alone unless told.

    Args:
        path: in a folder that exists.
        data: the whole content.
        mode: the file's permissions, whatever the umask.

    Raises:
        StorageError: the disk is full or the folder cannot be written; the old file, if any, is as before.
    """
    if not path.parent.is_dir():
        # The station's folders are made at init, with their owners; one that is gone is not made anew by whoever writes.
        raise storage_fault(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), path.name)
    files.write_atomically(path, data, mode=mode)


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
