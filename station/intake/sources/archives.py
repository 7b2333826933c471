"""Files from a zip: CTP's output, XNAT's exports, any folder that was zipped.

The archive is untrusted. What it says of itself is checked against ceilings before a byte is inflated, and what comes
out is counted again while it is inflated. Entries get numbers in the spool, so no name in the archive names a file of
ours; one that tries to leave its folder is refused all the same, for an archive that holds it was made to do harm.
Layouts need no knowledge of their own: every plain entry that begins as a DICOM file does is taken (PS3.10 7.1), and
the rest (DICOMDIR, XNAT's XML, CTP's reports, pictures) is skipped and counted. Archives inside archives stay closed.
"""

import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar, cast

from policies.documents import Name
from policies.errors import DataError, NotFoundError
from station.intake import spool as spooling
from station.intake.sources.folder import NOT_IMAGES
from station.intake.spool import SourceKind, StagedBatch

_T = TypeVar("_T")
_PREAMBLE_BYTES = 132
_PREFIX = b"DICM"
_ENCRYPTED = 0x1
_CHUNK_BYTES = 1 << 20
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
# What zipfile and the inflaters raise on an archive that is not what it says.
_FAULTS = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError, ValueError, LookupError,
    RuntimeError, MemoryError, UnicodeError,
)  # fmt: skip


class ArchiveReason(StrEnum):
    """Why an archive is refused whole."""

    NOT_AN_ARCHIVE = "not-an-archive"
    DAMAGED = "archive-damaged"
    ENCRYPTED = "archive-encrypted"
    PATH_OUTSIDE = "archive-path-outside"
    TOO_MANY_ENTRIES = "archive-too-many-entries"
    TOO_LARGE = "archive-too-large"
    FILE_TOO_LARGE = "archive-file-too-large"
    RATIO = "archive-ratio"
    METHOD = "archive-method"


_HINTS = {
    ArchiveReason.NOT_AN_ARCHIVE: "Give a .zip file, or a folder.",
    ArchiveReason.DAMAGED: "Make it again, or unpack it and give the folder.",
    ArchiveReason.ENCRYPTED: "Unpack it with its password and give the folder.",
    ArchiveReason.PATH_OUTSIDE: "An entry leaves the archive's folder: find out who made it.",
    ArchiveReason.TOO_MANY_ENTRIES: "Ingest in smaller parts.",
    ArchiveReason.TOO_LARGE: "Ingest in smaller parts.",
    ArchiveReason.FILE_TOO_LARGE: "Take the file out, or unpack the archive and give the folder.",
    ArchiveReason.RATIO: "It inflates as a zip bomb does. If it is sound, unpack it and give the folder.",
    ArchiveReason.METHOD: "Use deflate, or unpack it and give the folder.",
}


class ArchiveError(DataError):
    """An archive is refused; nothing of it was taken.

    Attributes:
        reason: the reason's code.
    """

    def __init__(self, reason: ArchiveReason) -> None:
        super().__init__(f"the archive is refused: {reason}", hint=_HINTS[reason])
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may be.

    Attributes:
        ratio: inflated bytes for one byte of the archive; CT compresses by 2 to 4, empty radiographs by 100 and more.
    """

    entries: int = 500_000
    total_bytes: int = 256 << 30
    file_bytes: int = 4 << 30
    ratio: int = 300


DEFAULT_LIMITS = ArchiveLimits()


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """A DICOM file in an archive, open for one reading from its first byte."""

    number: int
    name: str
    file: BinaryIO


class Archive:
    """An open archive whose directory was found in order. Make it with `open_archive`.

    Attributes:
        skipped: entries that were passed over so far.
    """

    def __init__(
        self, archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], limits: ArchiveLimits
    ) -> None:
        self._archive = archive
        self._entries = entries
        self._limits = limits
        self.skipped = 0

    @property
    def count(self) -> int:
        """How many entries there are to look at."""
        return len(self._entries)

    @property
    def total_bytes(self) -> int:
        """How large the entries say they are when inflated."""
        return sum(entry.file_size for entry in self._entries)

    def dicom_files(self) -> Iterator[ArchiveEntry]:
        """Open the DICOM files one after another, in the archive's order; the rest is skipped and counted.

        Reading one raises `ArchiveError` where it is damaged or larger than it says.
        """
        total = 0
        for number, entry in enumerate(self._entries):
            if _is_special(entry) or PurePosixPath(entry.filename).name in NOT_IMAGES:
                self.skipped += 1
                continue
            file = _guarded(partial(self._archive.open, entry))
            head = _guarded(partial(file.read, _PREAMBLE_BYTES))
            with file:
                if head[_PREAMBLE_BYTES - len(_PREFIX) :] != _PREFIX:
                    self.skipped += 1
                    continue
                bounded = _Bounded(head, file, min(entry.file_size, self._limits.file_bytes))
                # The cast: it has the one method of a file that its readers call.
                yield ArchiveEntry(number, entry.filename, cast("BinaryIO", bounded))
                total += bounded.read_bytes
                if total > self._limits.total_bytes:
                    raise ArchiveError(ArchiveReason.TOO_LARGE)


@contextmanager
def open_archive(source: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> Iterator[Archive]:
    """Open a zip file and judge what it says of itself.

    Raises:
        NotFoundError: it cannot be opened.
        ArchiveError: it is not a zip, or over a limit, or an entry is encrypted or would leave its folder.
    """
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NotFoundError(f"the archive cannot be opened ({error.strerror})") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or file.read(2) != b"PK":
            raise ArchiveError(ArchiveReason.NOT_AN_ARCHIVE)
        _require_bounded_directory(file, status.st_size, limits)
        with _guarded(partial(zipfile.ZipFile, file)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _judge(entries, status.st_size, limits)
            yield Archive(archive, entries, limits)


def stage_archive(
    spool: Path, source: Path, collection: Name | None = None, limits: ArchiveLimits = DEFAULT_LIMITS
) -> StagedBatch:
    """Inflate a zip's DICOM files into a new batch of the spool, durably.

    Raises:
        NotFoundError: it cannot be opened.
        ArchiveError: it is refused, by its reason; nothing is left behind.
        DataError: it holds no DICOM file.
        StorageError: there is not enough disk; nothing is left behind.
    """
    with open_archive(source, limits) as archive:
        spooling.require_space(spool, archive.total_bytes)
        with spooling.begin(spool, SourceKind.ARCHIVE, collection) as batch:
            for entry in archive.dicom_files():
                batch.copy(entry.file, limits.file_bytes)
            return batch.finish(skipped=archive.skipped)


class _Bounded:
    """An entry's bytes, with those already read before them, and an end where the entry said it ends."""

    def __init__(self, head: bytes, rest: BinaryIO | object, limit: int) -> None:
        self._head = BytesIO(head)
        self._rest = cast("BinaryIO", rest)
        self._limit = limit
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        wanted = _CHUNK_BYTES if size is None or size < 0 else size
        parts: list[bytes] = []
        while wanted > 0:
            part = self._head.read(wanted) or _guarded(partial(self._rest.read, min(wanted, _CHUNK_BYTES)))
            if not part:
                break
            self.read_bytes += len(part)
            if self.read_bytes > self._limit:
                raise ArchiveError(ArchiveReason.FILE_TOO_LARGE)
            parts.append(part)
            wanted = wanted - len(part) if size is not None and size >= 0 else _CHUNK_BYTES
        return b"".join(parts)


def _judge(entries: list[zipfile.ZipInfo], archive_bytes: int, limits: ArchiveLimits) -> None:
    if len(entries) > limits.entries:
        raise ArchiveError(ArchiveReason.TOO_MANY_ENTRIES)
    total = sum(entry.file_size for entry in entries)
    if total > limits.total_bytes:
        raise ArchiveError(ArchiveReason.TOO_LARGE)
    # Of the whole, against the file as it lies there: entries that share their bytes cannot hide it.
    if total > limits.ratio * max(archive_bytes, 1):
        raise ArchiveError(ArchiveReason.RATIO)
    for entry in entries:
        if entry.flag_bits & _ENCRYPTED:
            raise ArchiveError(ArchiveReason.ENCRYPTED)
        if _leaves(entry.filename):
            raise ArchiveError(ArchiveReason.PATH_OUTSIDE)
        if entry.file_size > limits.file_bytes:
            raise ArchiveError(ArchiveReason.FILE_TOO_LARGE)
        if entry.compress_type not in _METHODS:
            raise ArchiveError(ArchiveReason.METHOD)


def _require_bounded_directory(file: BinaryIO, size: int, limits: ArchiveLimits) -> None:
    """Refuse a directory of more entries than the limit before zipfile makes an object of each.

    A central directory header takes 46 bytes at least, so its size bounds how many it holds (APPNOTE 4.3.12); the end
    record says where it lies within the last 64 KiB (4.3.16).
    """
    tail_bytes = min(size, (1 << 16) + 22)
    file.seek(size - tail_bytes)
    tail = file.read(tail_bytes)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0:
        raise ArchiveError(ArchiveReason.DAMAGED)
    directory = int.from_bytes(tail[end + 12 : end + 16], "little")
    if directory == 0xFFFFFFFF:
        zip64 = tail.rfind(b"PK\x06\x06", 0, end)
        directory = int.from_bytes(tail[zip64 + 40 : zip64 + 48], "little") if zip64 >= 0 else size + 1
    if directory > size:
        raise ArchiveError(ArchiveReason.DAMAGED)
    if directory // 46 > limits.entries * 4:
        raise ArchiveError(ArchiveReason.TOO_MANY_ENTRIES)
    file.seek(0)


def _leaves(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or (len(name) > 1 and name[1] == ":") or "\0" in name


def _is_special(entry: zipfile.ZipInfo) -> bool:
    """Whether an entry is a symbolic link, a device or the like, as archives made on Unix say."""
    mode = entry.external_attr >> 16
    return stat.S_IFMT(mode) not in {0, stat.S_IFREG}


def _guarded(action: Callable[[], _T]) -> _T:
    """Run something of zipfile's and turn what it raises into ours, with nothing of the archive in it."""
    try:
        return action()
    except _FAULTS:
        pass
    # Outside the handler, so that no error which quotes a name hangs on this one.
    raise ArchiveError(ArchiveReason.DAMAGED)
