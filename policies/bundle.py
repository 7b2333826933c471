"""Bundles: a train's image and manifest as blobs by digest. Reads image archives and runs nothing.

A bundle is an index (JSON), the image's config blob, its layers as uncompressed tar blobs, and the manifest's blob. Blobs lie
in a plain content-addressed folder and are moved by digest, so what a party has already is not moved again.

`split_image` reads what ``docker save`` writes (Docker 20.10's own form, and the OCI layout of later versions, which holds the
same ``manifest.json``). Invariant: the layers it stores are, in order, exactly the bytes that the image config's
``rootfs.diff_ids`` name; so one digest, that of the config, stands for the whole image.
"""

import hashlib
import os
import posixpath
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Annotated, BinaryIO, Final, Literal

from pydantic import Field, JsonValue

from policies.documents import Digest, Sequence, StrictModel, canonical_json, load_json, parse_json
from policies.errors import DocumentError, NotFoundError, StorageError, TrustError

MAX_LAYERS: Final = 127
MAX_CONFIG_BYTES: Final = 1 << 20
MAX_MANIFEST_BYTES: Final = 1 << 20
MAX_IMAGE_BYTES: Final = 20 << 30
MAX_INDEX_BYTES: Final = 1 << 18
MAX_ARCHIVE_ENTRIES: Final = 2000

_CHUNK_BYTES: Final = 1 << 20
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_GZIP: Final = b"\x1f\x8b"


class Blob(StrictModel):
    """One blob: its digest and its size in bytes."""

    digest: Digest
    size: Annotated[int, Field(ge=0, le=MAX_IMAGE_BYTES)]


class BundleIndex(StrictModel):
    """What a train's bundle consists of.

    Attributes:
        format: version of this document.
        config: the image config; its digest is the image's identity.
        layers: the uncompressed layers, lowest first; none of a train without a program.
        manifest: the train's manifest as the researcher wrote it.
    """

    format: Literal[1] = 1
    config: Blob
    layers: Annotated[Sequence[Blob], Field(max_length=MAX_LAYERS)]
    manifest: Blob

    def blobs(self) -> tuple[Blob, ...]:
        """Return every blob once, small ones first."""
        unique = {each.digest: each for each in (self.manifest, self.config, *self.layers)}
        return tuple(unique.values())

    def encode(self) -> bytes:
        """Return the canonical bytes; their digest names the bundle."""
        return canonical_json(self)

    @classmethod
    def decode(cls, data: bytes) -> "BundleIndex":
        """Read an index from another party.

        Raises:
            DocumentError: it is none, or its sizes are beyond the limits.
        """
        index = load_json(cls, data, what="bundle index", max_bytes=MAX_INDEX_BYTES)
        if index.config.size > MAX_CONFIG_BYTES or index.manifest.size > MAX_MANIFEST_BYTES:
            raise DocumentError("bundle index: the config or the manifest is too large")
        if sum(each.size for each in index.layers) > MAX_IMAGE_BYTES:
            raise DocumentError("bundle index: the layers are too large together")
        return index


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
        if not _DIGEST.fullmatch(digest):
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
        return [f"sha256:{name}" for name in names if _DIGEST.fullmatch(f"sha256:{name}")]

    def remove(self, digest: str) -> None:
        """Remove a blob where it is there."""
        self.path(digest).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class ImageBlobs:
    """An image in a blob folder: its config and its uncompressed layers, lowest first."""

    config: Blob
    layers: tuple[Blob, ...]


def split_archive(archive: Path | BinaryIO, store: BlobFolder, manifest: bytes) -> BundleIndex:
    """Make a bundle of an image archive and a train manifest.

    Args:
        archive: what ``docker save`` writes, as a file or a stream.
        store: gets the blobs.
        manifest: the bytes of ``train.yaml``.

    Raises:
        DocumentError: the archive is no image archive, or is beyond the limits.
        TrustError: its layers are not the ones its config names.
        StorageError: the blobs cannot be stored.
    """
    if len(manifest) > MAX_MANIFEST_BYTES:
        raise DocumentError(f"train.yaml: {len(manifest)} bytes; at most {MAX_MANIFEST_BYTES} are read")
    image = split_image(archive, store)
    return BundleIndex(config=image.config, layers=image.layers, manifest=store.put_bytes(manifest))


def split_image(archive: Path | BinaryIO, store: BlobFolder) -> ImageBlobs:
    """Store the config and the layers of the one image in an archive; raises as `split_archive`."""
    if isinstance(archive, Path):
        try:
            with archive.open("rb") as file:
                return split_image(file, store)
        except OSError as error:
            raise DocumentError(f"{archive.name}: cannot be read ({error.strerror})") from error
    store.root.mkdir(parents=True, exist_ok=True, mode=0o750)
    # First into a folder aside: an archive that turns out to be none leaves nothing in the store.
    with tempfile.TemporaryDirectory(prefix=".split-", dir=store.root) as aside:
        staging = BlobFolder(Path(aside))
        entries, links = _read_entries(archive, staging)
        image = _assemble(staging, entries, links)
        for blob in {each.digest: each for each in (image.config, *image.layers)}.values():
            store.adopt(staging, blob.digest)
    return image


def diff_ids_of(config: JsonValue) -> tuple[str, ...]:
    """Return the digests of the uncompressed layers that an image config names, lowest first; none is no image to start.

    Raises:
        DocumentError: the config does not name them.
    """
    rootfs = config.get("rootfs") if isinstance(config, dict) else None
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(found, list) or len(found) > MAX_LAYERS:
        raise DocumentError(f"image config: rootfs.diff_ids must name at most {MAX_LAYERS} layers")
    digests = tuple(each for each in found if isinstance(each, str) and _DIGEST.fullmatch(each))
    if len(digests) != len(found):
        raise DocumentError("image config: rootfs.diff_ids must be sha256 digests")
    return digests


def config_without_program(name: str, version: str) -> bytes:
    """Return the image config of a train without a program: an OCI image config without layers, the same bytes each time.

    Its digest is the train's image digest in manifest, policy and order, so that all that is signed keeps one form. No station
    fetches, loads or starts it.

    Args:
        name: of the train.
        version: likewise.
    """
    labels = {"org.opencontainers.image.title": name, "org.opencontainers.image.version": version}
    return canonical_json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": []},
        }
    )


def _read_entries(archive: BinaryIO, store: BlobFolder) -> tuple[dict[str, Blob], dict[str, str]]:
    """Store every regular file of the archive; nothing is ever written under a name that the archive chose."""
    entries: dict[str, Blob] = {}
    links: dict[str, str] = {}
    left = MAX_IMAGE_BYTES
    try:
        with tarfile.open(fileobj=archive, mode="r|") as tar:
            for count, member in enumerate(tar):
                if count >= MAX_ARCHIVE_ENTRIES:
                    raise DocumentError(f"image archive: more than {MAX_ARCHIVE_ENTRIES} entries")
                name = _safe_name(member.name)
                if name in entries or name in links:
                    raise DocumentError("image archive: an entry stands twice")
                if member.issym():
                    # Docker 20.10 writes a layer that an image has twice as a link to the first one.
                    links[name] = _safe_name(posixpath.join(posixpath.dirname(name), member.linkname))
                elif member.isreg() and (source := tar.extractfile(member)) is not None:
                    entries[name] = store.put(_plain(source), max_bytes=left)
                    left -= entries[name].size
                elif not member.isdir():
                    raise DocumentError(
                        "image archive: holds something that is neither file, folder nor link"
                    )
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise DocumentError("image archive: is not a tar archive as `docker save` writes it") from error
    return entries, links


def _assemble(store: BlobFolder, entries: Mapping[str, Blob], links: Mapping[str, str]) -> ImageBlobs:
    listing = _json_entry(store, _resolve("manifest.json", entries, links))
    if not isinstance(listing, list) or len(listing) != 1 or not isinstance(listing[0], dict):
        raise DocumentError(
            "image archive: manifest.json must name exactly one image; save one image at a time"
        )
    config_name, layer_names = listing[0].get("Config"), listing[0].get("Layers")
    if not isinstance(config_name, str) or not isinstance(layer_names, list):
        raise DocumentError("image archive: manifest.json names no config or no layers")
    config_blob = _resolve(config_name, entries, links)
    config = _json_entry(store, config_blob)
    layers = tuple(_resolve(name, entries, links) for name in layer_names)
    named = diff_ids_of(config)
    if not named:
        raise DocumentError("image config: rootfs.diff_ids names no layers")
    if tuple(layer.digest for layer in layers) != named:
        raise TrustError("image archive: its layers are not the ones that its config names")
    return ImageBlobs(config_blob, layers)


def _resolve(name: JsonValue, entries: Mapping[str, Blob], links: Mapping[str, str]) -> Blob:
    if not isinstance(name, str):
        raise DocumentError("image archive: manifest.json names a layer by something that is no text")
    name = _safe_name(name)
    blob = entries.get(links.get(name, name))
    if blob is None:
        raise DocumentError("image archive: manifest.json names a file that is not there")
    return blob


def _json_entry(store: BlobFolder, blob: Blob) -> JsonValue:
    if blob.size > MAX_CONFIG_BYTES:
        raise DocumentError(
            f"image archive: a JSON file of {blob.size} bytes; at most {MAX_CONFIG_BYTES} are read"
        )
    data = store.read_bytes(blob.digest, max_bytes=MAX_CONFIG_BYTES)
    value: JsonValue = parse_json(data, what="image archive", max_bytes=MAX_CONFIG_BYTES)
    return value


def _safe_name(name: str) -> str:
    """Normalise a name inside the archive; refuse one that leaves it.

    >>> _safe_name("./0a/layer.tar")
    '0a/layer.tar'
    """
    normal = posixpath.normpath(name)
    if normal.startswith(("/", "..")) or "\0" in normal:
        raise DocumentError("image archive: an entry's name leaves the archive")
    return normal


def _plain(source: IO[bytes]) -> Iterator[bytes]:
    """Yield a file's bytes, unpacked where it is gzip (later versions of Docker may write layers so)."""
    chunk = source.read(_CHUNK_BYTES)
    if not chunk.startswith(_GZIP):
        while chunk:
            yield chunk
            chunk = source.read(_CHUNK_BYTES)
        return
    unpacker = zlib.decompressobj(wbits=31)
    while chunk:
        yield unpacker.decompress(chunk, _CHUNK_BYTES)
        chunk = unpacker.unconsumed_tail or source.read(_CHUNK_BYTES)
    if not unpacker.eof or unpacker.unused_data:
        raise DocumentError("image archive: a packed layer is cut short, or something follows it")


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
