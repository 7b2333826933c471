"""Blobs: bytes in a plain content-addressed folder, each named by the SHA-256 of what it holds.

What moves between the parties moves as blobs: the config and layers of an image, a manifest, weights, results; so what a party
has already is not moved again. Knows nothing of what the bytes mean. Invariant: a name in the folder is the digest of its bytes
as they were written; whether they still are, `read_bytes` and `rehash` tell.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path
from typing import Annotated, BinaryIO, Final

from pydantic import Field

from policies.documents import Digest, StrictModel, is_digest
from policies.errors import DocumentError, NotFoundError, StorageError, TrustError

MAX_IMAGE_BYTES: Final = 20 << 30
"""No blob is larger, and no image in all."""


class Blob(StrictModel):
    """One blob: its digest and its size in bytes."""

    digest: Digest
    size: Annotated[int, Field(ge=0, le=MAX_IMAGE_BYTES)]


class BlobFolder:
    """A content-addressed folder: ``<root>/sha256/<hex>``.

    A blob is verified while it is written to a temporary file, synced and then renamed: what has a digest for a name once had
    these bytes. A blob is read-only for its group, so that one user can write and another verify and read.
    """

    def __init__(self, root: Path) -> None:
        """Use a folder; it is made with the first blob."""
        self.root = root
        self._folder = root / "sha256"

    def path(self, digest: str) -> Path:
        """Return where a blob lies or would lie.

        Raises:
            DocumentError: that is no digest.
        """
        if not is_digest(digest):
            raise DocumentError("a blob is named by sha256:<64 lower-case hex digits>")
        return self._folder / digest.removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        """Whether the blob is there (not whether its bytes still are what they were, see `rehash`)."""
        return self.path(digest).is_file()

    def size(self, digest: str) -> int:
        """Return a blob's size in bytes.

        Raises:
            NotFoundError: it is not there.
        """
        with self.open(digest) as file:
            return os.fstat(file.fileno()).st_size

    def open(self, digest: str) -> BufferedReader:
        """Open a blob for reading; links are not followed.

        Raises:
            NotFoundError: it is not there.
        """
        try:
            return os.fdopen(os.open(self.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
        except OSError as error:
            raise NotFoundError(f"there is no blob {digest}") from error

    def put(
        self, chunks: Iterable[bytes], *, expect: str | None = None, max_bytes: int = MAX_IMAGE_BYTES
    ) -> Blob:
        """Store a blob.

        Args:
            chunks: its bytes.
            expect: the digest that it must have.
            max_bytes: more than this is refused while it comes in.

        Raises:
            TrustError: its digest is another one.
            DocumentError: it is too large.
            StorageError: it cannot be written.
        """
        if expect is not None:
            self.path(expect)
        try:
            return self._put(chunks, expect, max_bytes)
        except OSError as error:
            raise StorageError(
                f"a blob cannot be stored: {error.strerror}", hint="Is the disk full?"
            ) from error

    def _put(self, chunks: Iterable[bytes], expect: str | None, max_bytes: int) -> Blob:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        descriptor, name = tempfile.mkstemp(prefix=".incoming-", dir=self._folder)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                digest, size = _write(file, chunks, max_bytes)
                os.fchmod(file.fileno(), 0o640)
                file.flush()
                os.fsync(file.fileno())
            if expect is not None and digest != expect:
                raise TrustError(f"these bytes are {digest}, not {expect}")
            temporary.replace(self.path(digest))
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(self._folder)
        return Blob(digest=digest, size=size)

    def put_bytes(self, data: bytes, *, expect: str | None = None) -> Blob:
        """Store a small blob."""
        return self.put((data,), expect=expect)

    def read_bytes(self, digest: str, *, max_bytes: int) -> bytes:
        """Return a small blob's bytes, verified against its digest.

        Raises:
            NotFoundError: it is not there.
            TrustError: its bytes have changed, or are more than `max_bytes`.
        """
        with self.open(digest) as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes or "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            raise TrustError(f"the blob {digest} holds other bytes")
        return data

    def rehash(self, digest: str) -> int:
        """Read a blob through and return its size.

        Raises:
            NotFoundError: it is not there.
            TrustError: its bytes have changed.
        """
        with self.open(digest) as file:
            found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
        if found != digest:
            raise TrustError(f"the blob {digest} holds other bytes")
        return size

    def adopt(self, other: "BlobFolder", digest: str) -> None:
        """Move a blob here out of a folder on the same file system, where it was verified.

        Raises:
            StorageError: it cannot be moved.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            other.path(digest).replace(self.path(digest))
            _sync_folder(self._folder)
        except OSError as error:
            raise StorageError(
                f"a blob cannot be stored: {error.strerror}", hint="Is the disk full?"
            ) from error

    def take(self, file: Path, digest: str) -> None:
        """Move a file of the same file system here, whose bytes the caller has held against the digest.

        Raises:
            StorageError: it cannot be moved.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fchmod(descriptor, 0o640)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            file.replace(self.path(digest))
            _sync_folder(self._folder)
        except OSError as error:
            raise StorageError(
                f"a blob cannot be stored: {error.strerror}", hint="Is the disk full?"
            ) from error

    def digests(self) -> list[str]:
        """Return the digests of all blobs, in order."""
        try:
            names = sorted(entry.name for entry in self._folder.iterdir())
        except FileNotFoundError:
            return []
        return [f"sha256:{name}" for name in names if is_digest(f"sha256:{name}")]

    def remove(self, digest: str) -> None:
        """Remove a blob where it is there."""
        self.path(digest).unlink(missing_ok=True)


def _write(file: BinaryIO, chunks: Iterable[bytes], max_bytes: int) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise DocumentError(f"a blob is larger than the {max_bytes} bytes allowed")
        digest.update(chunk)
        file.write(chunk)
    return "sha256:" + digest.hexdigest(), size


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
