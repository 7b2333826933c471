"""The files of a source, one after another: of a folder by their paths, of a zip by their bytes.

Links are not followed, in neither. A file is named by a keyed digest of where it stands and what it looks like from
outside, never by its own name, which may hold a patient's.
"""

import hashlib
import hmac
import os
import stat
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from policies.errors import NotFoundError
from station.intake.sources.archives import Archive, ArchiveLimits, open_archive
from station.intake.sources.folder import NOT_IMAGES
from station.storage.files import storage_fault

_DIGEST_CHARACTERS = 32


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source.

    Attributes:
        file: the keyed digest that stands for it.
        path: where to read it; empty where it came out of an archive.
        data: its bytes, of an archive; empty for a file that is done already.
    """

    file: str
    path: str = field(default="", repr=False)
    data: bytes = field(default=b"", repr=False)


class Source(Protocol):
    """A folder or a zip file."""

    @property
    def total(self) -> int:
        """How many files there are to look at."""
        ...

    @property
    def skipped(self) -> int:
        """What was passed over so far: links, pipes, DICOMDIR, and in a zip what is no DICOM file."""
        ...

    def files(self, done: Container[str]) -> Iterator[SourceFile]:
        """Give the files in one order; those that are done come without their bytes."""
        ...


@contextmanager
def open_source(source: Path, key: bytes, max_file_bytes: int) -> Iterator[Source]:
    """Open a folder or a zip file.

    Args:
        source: where it is.
        key: keys the digests that stand for its files.
        max_file_bytes: a zip with a larger file is refused.

    Raises:
        NotFoundError: it is not there.
        ArchiveError: the zip is refused.
        StorageError: a folder cannot be read.
    """
    if source.is_dir():
        yield FolderSource(source, key)
        return
    if not source.exists():
        raise NotFoundError("the source is not there", hint="Give a folder of DICOM files, or a zip file.")
    with open_archive(source, ArchiveLimits(file_bytes=max_file_bytes)) as archive:
        status = source.stat()
        yield ArchiveSource(archive, key, f"{status.st_size} {status.st_mtime_ns}", max_file_bytes)


class FolderSource:
    """The plain files under a folder, in the order of their names."""

    def __init__(self, root: Path, key: bytes) -> None:
        self._key = key
        self._found: list[tuple[str, str]] = []
        self.skipped = 0
        for folder, folders, names in os.walk(root, followlinks=False, onerror=_unreadable):
            folders.sort()
            for name in sorted(names):
                path = Path(folder) / name
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode) or name in NOT_IMAGES:
                    self.skipped += 1
                    continue
                seen = f"{status.st_size} {status.st_mtime_ns}"
                self._found.append((str(path), _digest(key, str(path.relative_to(root)), seen)))
            # A link to a folder is not followed: it is one thing that was passed over.
            self.skipped += sum((Path(folder) / name).is_symlink() for name in folders)

    @property
    def total(self) -> int:
        """How many files there are."""
        return len(self._found)

    def files(self, done: Container[str]) -> Iterator[SourceFile]:
        """Give the files by their paths."""
        del done
        for path, digest in self._found:
            yield SourceFile(digest, path=path)


class ArchiveSource:
    """The DICOM files of an open archive, in its order."""

    def __init__(self, archive: Archive, key: bytes, seen: str, max_file_bytes: int) -> None:
        self._archive = archive
        self._key = key
        self._seen = seen
        self._max_file_bytes = max_file_bytes
        self.total = archive.count

    @property
    def skipped(self) -> int:
        """What was passed over so far."""
        return self._archive.skipped

    def files(self, done: Container[str]) -> Iterator[SourceFile]:
        """Give the files by their bytes."""
        for entry in self._archive.dicom_files():
            digest = _digest(self._key, entry.name, str(entry.number), self._seen)
            data = b"" if digest in done else entry.file.read(self._max_file_bytes)
            yield SourceFile(digest, data=data)


def _digest(key: bytes, *parts: str) -> str:
    message = "\0".join(parts).encode("utf-8", "surrogateescape")
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:_DIGEST_CHARACTERS]


def _unreadable(error: OSError) -> None:
    # os.walk would pass over a folder it cannot read, and its images would be missing without a word.
    raise storage_fault(OSError(error.errno or 5, error.strerror), "a folder of the source") from None
