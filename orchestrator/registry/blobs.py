"""Bytes by digest in files: streamed in, verified, resumable, renamed into place when whole.

The whole ones lie as in `policies.blobs.BlobFolder`, which the run worker uses on the same folder. Knows nothing of
who may read or write (`access` does). Invariants: a file under its digest has that digest and never
changes; an upload that stops half-way is taken up where it stopped, by the one who began it and nobody else; a
verification failure leaves nothing behind.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orchestrator.federation.updates import FOLDER
from policies.documents import Digest, digest_of_file
from policies.errors import StorageError, UsageError, WireError

_BUFFER_BYTES = 1 << 20
SESSIONS = "oci-uploads"
"""Beside the blobs: the distribution API's uploads (`oci.uploads`)."""


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Ceilings, in bytes."""

    blob_bytes: int = 16 << 30
    free_bytes: int = 1 << 30

    @property
    def spare_bytes(self) -> int:
        """What stays free of uploads that no run waits for, so that whoever sends them without end stops no run."""
        return 2 * self.free_bytes


class BlobStore:
    """A folder of blobs; several processes may use it at once."""

    def __init__(self, folder: Path, limits: StoreLimits | None = None) -> None:
        self._whole = folder / "sha256"
        self._partial = folder / "partial"
        self._sessions = folder / SESSIONS
        self._limits = limits or StoreLimits()

    @property
    def limits(self) -> StoreLimits:
        """The ceilings that hold here."""
        return self._limits

    def path(self, digest: Digest) -> Path | None:
        """Return the file of a blob, or None where it is not here."""
        path = self._whole / _hex(digest)
        return path if path.is_file() else None

    def size(self, digest: Digest) -> int | None:
        """Return a blob's size in bytes, or None where it is not here."""
        try:
            return (self._whole / _hex(digest)).stat().st_size
        except FileNotFoundError:
            return None

    def received(self, digest: Digest, uploader: str) -> int:
        """Return how many bytes of an unfinished upload are here."""
        try:
            return self.partial_path(digest, uploader).stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def upload(
        self, digest: Digest, uploader: str, *, offset: int, total: int, release: bool = False
    ) -> Iterator["Upload"]:
        """Take (more of) an upload.

        Args:
            digest: what the whole must turn out to be.
            uploader: who sends; a partial upload belongs to its uploader.
            offset: where these bytes begin; at most what is here already.
            total: size of the whole, in bytes.
            release: it is a station's, for a run: it may take of the free disk what others must leave.

        Raises:
            UsageError: above the ceiling, a wrong offset, or the same upload runs already.
            StorageError: the disk would get too full, or cannot be written.
        """
        if total > self._limits.blob_bytes:
            raise UsageError(f"a blob of {total} bytes is over the limit of {self._limits.blob_bytes}")
        path = self.partial_path(digest, uploader)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._whole.mkdir(parents=True, exist_ok=True)
            keep_free = self._limits.free_bytes if release else self._limits.spare_bytes
            require_room(self._partial, total - offset, keep_free)
            with _exclusive(path) as file:
                here = file.seek(0, os.SEEK_END)
                if not 0 <= offset <= here:
                    raise UsageError(f"the upload stands at {here} bytes, not at {offset}")
                file.truncate(offset)
                file.seek(offset)
                yield Upload(self, digest, file, total, keep_free)
        except OSError as error:
            raise StorageError(f"the blob cannot be stored ({error.strerror})") from error

    def forget_stale_uploads(self, older_than_s: float) -> int:
        """Remove what was left of uploads that nobody goes on with; return how many."""
        count = 0
        limit = time.time() - older_than_s
        for path in self._partial.iterdir() if self._partial.is_dir() else ():
            if path.stat().st_mtime < limit:
                path.unlink(missing_ok=True)
                count += 1
        return count

    def unfinished(self, uploader: str) -> Iterator[tuple[Path, int]]:
        """The files of an uploader's unfinished uploads, of ours and of the distribution API's, with their sizes."""
        mark = mark_of(uploader)
        for folder, pattern in ((self._partial, f"*.{mark}"), (self._sessions, f"*.{mark}.*")):
            yield from _sized(folder.glob(pattern))

    def updates(self, station: str) -> Iterator[tuple[str, int]]:
        """What is kept of a station's updates: hex of the digest, and size; a file that lies there twice counts once."""
        seen = set()
        for path in (self._whole.parent / FOLDER).glob(f"*/{station}/*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                if status.st_ino not in seen:
                    seen.add(status.st_ino)
                    yield path.name, status.st_size

    def forget_upload(self, digest: Digest, uploader: str) -> bool:
        """Remove what is here of an unfinished upload; return whether there was anything."""
        path = self.partial_path(digest, uploader)
        there = path.exists()
        path.unlink(missing_ok=True)
        return there

    def remove(self, digest: Digest) -> None:
        """Remove a blob; the caller has seen to it that nobody holds it."""
        (self._whole / _hex(digest)).unlink(missing_ok=True)

    def place(self, partial: Path, digest: Digest, apart: Path | None = None) -> None:
        """Give a verified file its name, among the blobs or apart from them; only `Upload` calls this."""
        whole = apart or self._whole / _hex(digest)
        whole.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        partial.chmod(0o640)
        partial.replace(whole)
        for folder in (whole.parent, self._partial):
            _sync_folder(folder)

    def partial_path(self, digest: Digest, uploader: str) -> Path:
        """The file in which an upload arrives."""
        return self._partial / f"{_hex(digest)}.{mark_of(uploader)}"


class Upload:
    """Bytes on their way into the store."""

    def __init__(
        self, store: BlobStore, digest: Digest, file: BinaryIO, total: int, keep_free: int = 0
    ) -> None:
        self._store, self._digest, self._file, self._total = store, digest, file, total
        self._keep_free = keep_free
        self._start = file.tell()
        self._body = hashlib.sha256()

    @property
    def position(self) -> int:
        """How many bytes of the whole are here."""
        return self._file.tell()

    @property
    def body_digest(self) -> Digest:
        """Digest of what this upload brought, for signed requests."""
        return "sha256:" + self._body.hexdigest()

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            UsageError: more than the announced total.
            StorageError: the disk got too full since the upload began; what came stays.
        """
        if self._file.tell() + len(data) > self._total:
            raise UsageError("more bytes than announced")
        # There may be many uploads at once, each of which found room when it began.
        require_room(Path(self._file.name).parent, len(data), self._keep_free)
        self._body.update(data)
        self._file.write(data)

    def drop(self) -> None:
        """Forget what this upload brought."""
        self._file.flush()
        self._file.truncate(self._start)

    def finish(self, apart: Path | None = None) -> bool:
        """Put the blob in place if it is whole; return whether it was.

        Args:
            apart: where it is to lie on the same disk, if not among the blobs.

        Raises:
            WireError: the bytes are not the digest's; they are dropped.
        """
        self._file.flush()
        if self._file.tell() < self._total:
            return False
        os.fsync(self._file.fileno())
        path = Path(self._file.name)
        # A resumed upload is read again from the disk: its first part was hashed by a process that may be gone.
        found = self.body_digest if self._start == 0 else digest_of_file(path)
        if found != self._digest:
            path.unlink(missing_ok=True)
            raise WireError("the bytes received do not have the digest they were sent under")
        self._store.place(path, self._digest, apart)
        return True


def require_room(folder: Path, size_bytes: int, keep_free: int) -> None:
    """Check that bytes leave enough of the disk free.

    Raises:
        StorageError: they would not.
    """
    if shutil.disk_usage(folder).free - size_bytes < keep_free:
        raise StorageError("the orchestrator's disk is too full for this upload")


def mark_of(text: str) -> str:
    """How the file of an unfinished upload names its party."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sized(paths: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    for path in paths:
        with suppress(FileNotFoundError):
            yield path, path.stat().st_size


def _hex(digest: Digest) -> str:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise UsageError("not a digest of the form sha256:<64 hex digits>")
    return value


@contextmanager
def _exclusive(path: Path) -> Iterator[BinaryIO]:
    with open(path, "r+b", buffering=_BUFFER_BYTES, opener=_create_private) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError("this upload is under way already") from error
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            raise UsageError("this upload was just finished by another request")
        yield file


def _create_private(path: str, _flags: int) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
