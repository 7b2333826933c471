"""Files and folders of the spool: durable when written, held while somebody is at them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from policies.errors import DataError
from station.storage.files import storage_fault, sync_folder

_CHUNK_BYTES = 1 << 20


def write_durably(part: Path, source: bytes | BinaryIO, max_bytes: int | None) -> int:
    """Write a file under the name `part` and rename it to what is before the suffix, durably; returns its size.

    Raises:
        DataError: it is over `max_bytes`; it is not there.
        StorageError: it cannot be written; it is not there.
    """
    size = 0
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0):
            for chunk in _chunks(source, max_bytes):
                size += len(chunk)
                _write_whole(descriptor, chunk)
            os.fsync(descriptor)
        part.rename(part.with_suffix(""))
        sync_folder(part.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise storage_fault(error, "spool") from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return size


@contextmanager
def gate(spool: Path) -> Iterator[None]:
    """Pass one at a time: who makes a folder in the spool, and who tidies up."""
    descriptor = os.open(spool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def hold(folder: Path) -> int:
    """Hold a lock on a folder; the kernel lets go when the process ends, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _chunks(source: bytes | BinaryIO, max_bytes: int | None) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    size = 0
    while chunk := source.read(_CHUNK_BYTES):
        size += len(chunk)
        if max_bytes is not None and size > max_bytes:
            raise DataError("a file of the source is over its limit")
        yield chunk


def _write_whole(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def give_to_owner(path: Path, owner: os.stat_result) -> None:
    """Give a file to the spool's owner: an operator who is root stages for intake's user."""
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
