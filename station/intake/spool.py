"""The spool: files are durable here before anything is done with them.

    spool/.incoming-<batch>/     being copied; removed when the copy fails
    spool/<batch>/batch.json     the batch's own card, written last
    spool/<batch>/<7 digits>     the files, without their own names, which may hold a patient's

A batch exists when its folder has been renamed. It waits until it is told which collection it belongs to; from then
on it is processed to its end, whatever happens.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

from policies.documents import Moment, StrictModel, canonical_json, load_json
from policies.errors import DataError, NotFoundError, StateError, StorageError
from station.storage.files import storage_fault, sync_folder, write_atomically

BATCH_NAME = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{8}")
_FILE_NAME = re.compile(r"[0-9]{7}")
_CARD = "batch.json"
_INCOMING = ".incoming-"
_CHUNK_BYTES = 1 << 20
_RESERVE_BYTES = 256 << 20


class BatchCard(StrictModel):
    """What stands in batch.json.

    Attributes:
        skipped: entries of the source that were not plain files: links, sockets and the like.
    """

    files: Annotated[int, Field(ge=0)]
    skipped: Annotated[int, Field(ge=0)]
    received_at: Moment


@dataclass(frozen=True, slots=True)
class StagedBatch:
    """A batch in the spool."""

    name: str
    card: BatchCard


def stage_folder(spool: Path, source: Path) -> StagedBatch:
    """Copy a folder's files into a new batch of the spool, durably; links are never followed.

    The copies are given to the spool's owner, so that an operator who is root can stage for intake's user.

    Raises:
        NotFoundError: the source is not a folder.
        DataError: the source holds no files.
        StorageError: there is not enough disk; nothing is left behind.
    """
    if not source.is_dir():
        raise NotFoundError("the source is not a folder", hint="Give a folder of DICOM files.")
    files = list(_plain_files(source))
    plain = [path for path, size in files if size is not None]
    _require_space(spool, sum(size for _, size in files if size is not None))
    if not plain:
        raise DataError("the source holds no files", hint="Give a folder of DICOM files.")
    now = datetime.now(UTC)
    name = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    incoming = spool / f"{_INCOMING}{name}"
    card = BatchCard(files=len(plain), skipped=len(files) - len(plain), received_at=now)
    try:
        incoming.mkdir(mode=0o700)
        with _held(incoming):
            for index, path in enumerate(plain):
                _copy(path, incoming / f"{index:07d}")
            write_atomically(incoming / _CARD, canonical_json(card))
            _give_to_owner(incoming, spool.stat())
            incoming.rename(spool / name)
            sync_folder(spool)
    except OSError as error:
        shutil.rmtree(incoming, ignore_errors=True)
        raise storage_fault(error, "spool") from error
    except BaseException:
        shutil.rmtree(incoming, ignore_errors=True)
        raise
    return StagedBatch(name, card)


def batches(spool: Path) -> list[StagedBatch]:
    """Return the batches that stand in the spool, oldest first."""
    names = sorted(path.name for path in spool.iterdir() if BATCH_NAME.fullmatch(path.name))
    return [open_batch(spool, name) for name in names]


def open_batch(spool: Path, name: str) -> StagedBatch:
    """Read a batch's card.

    Raises:
        NotFoundError: there is no such batch.
        StateError: the card is missing or damaged.
    """
    if not BATCH_NAME.fullmatch(name) or not (spool / name).is_dir():
        raise NotFoundError("there is no such batch in the spool")
    try:
        data = (spool / name / _CARD).read_bytes()
    except OSError as error:
        raise StateError(f"batch {name}: its card cannot be read ({error.strerror})") from error
    return StagedBatch(name, load_json(BatchCard, data, what=f"batch {name}"))


def files_of(spool: Path, name: str) -> list[str]:
    """Return the names of the files that still stand in a batch."""
    return sorted(path.name for path in (spool / name).iterdir() if _FILE_NAME.fullmatch(path.name))


def remove_batch(spool: Path, name: str) -> None:
    """Remove a batch whose files are all dealt with."""
    folder = spool / name
    with suppress(FileNotFoundError):
        (folder / _CARD).unlink()
    with suppress(FileNotFoundError):
        folder.rmdir()
    sync_folder(spool)


def remove_incomplete(spool: Path) -> int:
    """Remove copies that were cut off, and not those still being made; returns how many."""
    removed = 0
    for path in [path for path in spool.iterdir() if path.name.startswith(_INCOMING)]:
        try:
            with _held(path):
                shutil.rmtree(path, ignore_errors=True)
                removed += 1
        except (BlockingIOError, FileNotFoundError):
            continue
    return removed


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder; the kernel lets go when the process ends, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _plain_files(source: Path) -> Iterator[tuple[Path, int | None]]:
    for folder, folders, names in os.walk(source, followlinks=False):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            status = path.lstat()
            yield path, status.st_size if stat.S_ISREG(status.st_mode) else None


def _require_space(spool: Path, size_bytes: int) -> None:
    # Once for the spool, once for the pseudonymised copy.
    free = shutil.disk_usage(spool).free
    if free < 2 * size_bytes + _RESERVE_BYTES:
        raise StorageError(
            f"the spool's disk has {free >> 20} MiB free and {(2 * size_bytes + _RESERVE_BYTES) >> 20} MiB are needed",
            hint="Free disk space, or ingest in smaller parts.",
        )


def _copy(source: Path, target: Path) -> None:
    try:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        # Not the source's name: it may hold a patient's.
        raise OSError(error.errno or errno.EIO, error.strerror) from None
    with os.fdopen(reading, "rb") as data:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(writing, "wb") as copy:
            shutil.copyfileobj(data, copy, _CHUNK_BYTES)
            copy.flush()
            os.fsync(copy.fileno())


def _give_to_owner(folder: Path, owner: os.stat_result) -> None:
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
