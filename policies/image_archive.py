"""Image archives: what ``docker save`` writes is split into the blobs that the image's config names. Runs nothing.

Reads Docker 20.10's own form, and the OCI layout of later versions, which holds the same ``manifest.json``. Invariant: the layers
it stores are, in order, exactly the bytes that the image config's ``rootfs.diff_ids`` name; so one digest, that of the config,
stands for the whole image. An archive that is none leaves nothing in the store.
"""

import posixpath
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final

from pydantic import JsonValue

from policies.blobs import MAX_IMAGE_BYTES, Blob, BlobFolder
from policies.bundle import MAX_MANIFEST_BYTES, BundleIndex
from policies.documents import parse_json
from policies.errors import DocumentError, TrustError
from policies.image_config import MAX_CONFIG_BYTES, diff_ids_of

MAX_ARCHIVE_ENTRIES: Final = 2000

_CHUNK_BYTES: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"


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
