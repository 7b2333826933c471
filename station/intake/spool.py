"""The spool: files are durable here before anything is done with them.

    spool/.incoming-<batch>/source.json   where it comes from, written first
    spool/.incoming-<batch>/<7 digits>    files that have arrived; .part while one is being written
    spool/<batch>/batch.json              the batch's own card, written last
    spool/<batch>/<7 digits>              the files, without their own names, which may hold a patient's

A batch exists when its folder has been renamed. One whose card names its collection is taken up by the service by itself;
another waits until it is told. From then on it is processed to its end, whatever happens.

What a receiver added is durable when `add` returns, so it may be acknowledged: a receiver's batch that was cut off is
finished with what arrived. A copy of a folder or archive that was cut off is removed: it can be made again.
"""

import logging
import os
import re
import secrets
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Annotated, BinaryIO, Self

from pydantic import Field

from policies.documents import Moment, Name, StrictModel, canonical_json, load_json
from policies.errors import DataError, DocumentError, NotFoundError, StateError, StorageError
from station.intake.spool_files import gate, give_to_owner, hold, write_durably
from station.storage.files import storage_fault, sync_folder, write_atomically

LOG = logging.getLogger("station.intake")

BATCH_NAME = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{8}")
FILE_NAME = re.compile(r"[0-9]{7}")
MAX_FILES = 10_000_000
RESERVE_BYTES = 256 << 20
_CARD = "batch.json"
_SOURCE = "source.json"
_INCOMING = ".incoming-"
_PART = ".part"


class SourceKind(StrEnum):
    """How files came in."""

    FOLDER = "folder"
    ARCHIVE = "archive"
    C_STORE = "c-store"
    C_MOVE = "c-move"
    C_GET = "c-get"
    DICOMWEB = "dicomweb"

    @property
    def acknowledges(self) -> bool:
        """Whether the sender was told that a file has arrived, and will not send it again."""
        return self not in {SourceKind.FOLDER, SourceKind.ARCHIVE}


class SourceCard(StrictModel):
    """What stands in source.json while a batch is being received."""

    source: SourceKind
    collection: Name | None
    received_at: Moment


class BatchCard(StrictModel):
    """What stands in batch.json.

    Attributes:
        skipped: entries of the source that were not taken: links, sockets, DICOMDIR and the like.
        collection: where it belongs; None until it is told.
    """

    files: Annotated[int, Field(ge=0)]
    skipped: Annotated[int, Field(ge=0)]
    received_at: Moment
    source: SourceKind = SourceKind.FOLDER
    collection: Name | None = None


@dataclass(frozen=True, slots=True)
class StagedBatch:
    """A batch in the spool."""

    name: str
    card: BatchCard


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of batches that an earlier process was receiving."""

    finished: tuple[StagedBatch, ...]
    removed: int


class IncomingBatch:
    """A batch that is being received; made by `begin`, ended by `finish` or `abandon`. Threads may share it.

    As a context manager it is abandoned unless it was finished.
    """

    def __init__(self, spool: Path, name: str, source: SourceCard, held: int) -> None:
        self._spool = spool
        self._name = name
        self._source = source
        self._held = held
        self._folder = spool / f"{_INCOMING}{name}"
        self._numbers = iter(range(MAX_FILES))
        self._lock = threading.Lock()
        self._files = 0
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self.abandon()

    @property
    def name(self) -> str:
        """The batch's name, which it keeps."""
        return self._name

    @property
    def files(self) -> int:
        """How many files have arrived."""
        return self._files

    def add(self, data: bytes) -> None:
        """Write one file; it is durable on return, and safe to acknowledge.

        Raises:
            StorageError: the disk is full or too near to it; the file is not there.
            StateError: the batch was finished or abandoned.
        """
        part = self._next_part()
        self._write(part, data)

    def copy(self, source: BinaryIO, max_bytes: int) -> int:
        """Write one file from an open one, as `add`; returns its size.

        Raises:
            DataError: the file is over `max_bytes`; it is not there.
            StorageError: as `add`.
        """
        part = self._next_part()
        return self._write(part, source, max_bytes)

    def take_back(self, kept: int) -> None:
        """Remove the newest files until so many are left: what came with them proved wrong. For a batch of one thread.

        Raises:
            StorageError: one cannot be removed.
        """
        with self._lock:
            self._require_open()
            files = sorted(path for path in self._folder.iterdir() if FILE_NAME.fullmatch(path.name))
            try:
                for path in files[kept:]:
                    path.unlink()
                sync_folder(self._folder)
            except OSError as error:
                raise storage_fault(error, "spool") from error
            self._files = kept

    def finish(self, skipped: int = 0) -> StagedBatch:
        """Make the batch stand in the spool.

        Raises:
            DataError: no file has arrived; nothing is left behind.
            StorageError: it cannot be written; it stays as it is and can be recovered.
        """
        with self._lock:
            self._require_open()
            self._open = False
        try:
            if not self._files:
                shutil.rmtree(self._folder, ignore_errors=True)
                raise DataError("the source holds no files", hint="Give one with DICOM files.")
            return _finish(self._spool, self._name, self._source, skipped)
        finally:
            os.close(self._held)

    def abandon(self) -> None:
        """Remove what has arrived."""
        with self._lock:
            self._require_open()
            self._open = False
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._held)

    def _next_part(self) -> Path:
        with self._lock:
            self._require_open()
            number = next(self._numbers, None)
        if number is None:
            raise StorageError(f"a batch holds {MAX_FILES} files at most", hint="Ingest in smaller parts.")
        require_space(self._spool, 0)
        return self._folder / f"{number:07d}{_PART}"

    def _write(self, part: Path, source: bytes | BinaryIO, max_bytes: int | None = None) -> int:
        size = write_durably(part, source, max_bytes)
        with self._lock:
            self._files += 1
        return size

    def _require_open(self) -> None:
        if not self._open:
            raise StateError("the batch was finished or abandoned")


def begin(spool: Path, source: SourceKind, collection: Name | None) -> IncomingBatch:
    """Begin a batch in the spool.

    Args:
        spool: intake's spool.
        source: how its files come in.
        collection: where it belongs; with None it waits until somebody says.

    Raises:
        StorageError: the spool cannot be written, or its disk is too full.
    """
    require_space(spool, 0)
    now = datetime.now(UTC)
    name = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    folder = spool / f"{_INCOMING}{name}"
    card = SourceCard(source=source, collection=collection, received_at=now)
    try:
        # Nobody who tidies up sees the folder before it is held.
        with gate(spool):
            folder.mkdir(mode=0o700)
            give_to_owner(folder, spool.stat())
            held = hold(folder)
        try:
            write_atomically(folder / _SOURCE, canonical_json(card))
            sync_folder(spool)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)
            raise
    except OSError as error:
        raise storage_fault(error, "spool") from error
    return IncomingBatch(spool, name, card, held)


def recover_incomplete(spool: Path) -> Recovered:
    """Deal with batches that a process which is no more was receiving; those still being received are left alone.

    Raises:
        StorageError: the spool cannot be written.
    """
    finished: list[StagedBatch] = []
    removed = 0
    with gate(spool):
        for folder in sorted(path for path in spool.iterdir() if path.name.startswith(_INCOMING)):
            try:
                held = hold(folder)
            except (BlockingIOError, FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            try:
                batch = _recover(spool, folder)
            except OSError as error:
                raise storage_fault(error, "spool") from error
            finally:
                os.close(held)
            if batch is None:
                removed += 1
            else:
                finished.append(batch)
    return Recovered(tuple(finished), removed)


def batches(spool: Path) -> list[StagedBatch]:
    """Return the batches that stand in the spool, oldest first; one whose card is damaged is left, and said."""
    found: list[StagedBatch] = []
    for name in sorted(path.name for path in spool.iterdir() if BATCH_NAME.fullmatch(path.name)):
        try:
            found.append(open_batch(spool, name))
        except (NotFoundError, StateError, DocumentError):
            # One that is done with loses its card first, then its folder.
            if (spool / name / _CARD).exists():
                LOG.error("spool-card-damaged", extra={"batch": name})  # noqa: TRY400 - no text of others
    return found


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
    return sorted(path.name for path in (spool / name).iterdir() if FILE_NAME.fullmatch(path.name))


def remove_batch(spool: Path, name: str) -> None:
    """Remove a batch whose files are all dealt with."""
    folder = spool / name
    for card in (_SOURCE, _CARD):
        with suppress(FileNotFoundError):
            (folder / card).unlink()
    with suppress(FileNotFoundError):
        folder.rmdir()
    sync_folder(spool)


def require_space(spool: Path, size_bytes: int) -> None:
    """Refuse what the disk will not hold: once in the spool, once as the pseudonymised copy, and a reserve.

    Raises:
        StorageError: there is not enough.
    """
    free = shutil.disk_usage(spool).free
    needed = 2 * size_bytes + RESERVE_BYTES
    if free < needed:
        raise StorageError(
            f"the spool's disk has {free >> 20} MiB free and {needed >> 20} MiB are needed",
            hint="Free disk space, or ingest in smaller parts.",
        )


def _recover(spool: Path, folder: Path) -> StagedBatch | None:
    try:
        source = load_json(SourceCard, (folder / _SOURCE).read_bytes(), what="spool source")
    except (FileNotFoundError, DocumentError):
        # Cut off before anything could arrive.
        source = None
    for part in folder.glob(f"*{_PART}"):
        part.unlink()
    has_files = any(FILE_NAME.fullmatch(path.name) for path in folder.iterdir())
    if source is None or not source.source.acknowledges or not has_files:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return _finish(spool, folder.name.removeprefix(_INCOMING), source, 0)


def _finish(spool: Path, name: str, source: SourceCard, skipped: int) -> StagedBatch:
    folder = spool / f"{_INCOMING}{name}"
    try:
        files = sum(1 for path in folder.iterdir() if FILE_NAME.fullmatch(path.name))
        card = BatchCard(
            files=files,
            skipped=skipped,
            received_at=source.received_at,
            source=source.source,
            collection=source.collection,
        )
        write_atomically(folder / _CARD, canonical_json(card))
        for path in folder.iterdir():
            give_to_owner(path, spool.stat())
        folder.rename(spool / name)
        sync_folder(spool)
    except OSError as error:
        raise storage_fault(error, "spool") from error
    return StagedBatch(name, card)
