"""The archive that an engine is given: nameless, so that loading it can replace nothing, and hashed while it is made."""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from typing import Final

from pydantic import JsonValue

from policies.blobs import BlobFolder
from policies.documents import canonical_json
from policies.errors import NotFoundError, RefusedError
from policies.layers import LayerReader, LayerRefusedError
from policies.refusals import RefusalCode
from station.sandbox.image.rewriting import RewrittenImage

_CHUNK_BYTES: Final = 1 << 20
_TAR_BLOCK: Final = 512


def archive(image: RewrittenImage, store: BlobFolder, *, skip: int) -> Iterator[bytes]:
    """Yield the archive for ``docker load``, without names, hashing each layer as it is read.

    It is an OCI layout that holds Docker's older ``manifest.json`` too, so both kinds of image store read it.

    Args:
        image: the image.
        store: holds its layers.
        skip: leave out this many of the lowest layers; the engine has them. (Docker 20.10 looks a layer up by its chain before
            it opens its file.)

    Raises:
        RefusedError: a layer is missing or holds other bytes. The engine then has no manifest and makes no image.
    """
    sent: set[str] = set()
    yield from _file("oci-layout", canonical_json({"imageLayoutVersion": "1.0.0"}))
    for digest in image.diff_ids[skip:]:
        if digest not in sent:
            sent.add(digest)
            yield from _layer(digest, store)
    yield from _file(_blob_name(image.config_digest), image.config)
    yield from _file(_blob_name(image.manifest_digest), image.manifest)
    layers: list[JsonValue] = [_blob_name(each) for each in image.diff_ids]
    listing: JsonValue = [{"Config": _blob_name(image.config_digest), "RepoTags": None, "Layers": layers}]
    yield from _file("manifest.json", canonical_json(listing))
    yield from _file("index.json", canonical_json(_index(image)))
    yield b"\0" * _TAR_BLOCK * 2


def _index(image: RewrittenImage) -> JsonValue:
    architecture = json.loads(image.config)["architecture"]
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": image.manifest_digest,
                "size": len(image.manifest),
                "platform": {"architecture": architecture, "os": "linux"},
            }
        ],
    }


def _layer(digest: str, store: BlobFolder) -> Iterator[bytes]:
    """Yield a layer's entry, hashed and read on its way: the engine unpacks as root what compute stored."""
    hashed = hashlib.sha256()
    reader, refused = LayerReader(), None
    try:
        size = store.size(digest)
        with store.open(digest) as file:
            yield _tar_header(_blob_name(digest), size)
            left = size
            while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                left -= len(chunk)
                hashed.update(chunk)
                refused = refused or _refusal(reader, chunk, last=not left)
                if refused is None:
                    yield chunk
    except NotFoundError as error:
        raise RefusedError(RefusalCode.IMAGE_UNAVAILABLE, "a layer is not in the layer store") from error
    # That its bytes were changed is said rather than what they were changed to.
    if left or "sha256:" + hashed.hexdigest() != digest:
        raise RefusedError(RefusalCode.IMAGE_DIGEST, "a layer holds other bytes than were signed")
    if refused is not None:
        raise refused
    yield b"\0" * (-size % _TAR_BLOCK)


def _refusal(reader: LayerReader, chunk: bytes, *, last: bool) -> LayerRefusedError | None:
    try:
        reader.feed(chunk)
        if last:
            reader.finish()
    except LayerRefusedError as error:
        return error
    return None


def _file(name: str, content: bytes) -> Iterator[bytes]:
    yield _tar_header(name, len(content))
    yield content + b"\0" * (-len(content) % _TAR_BLOCK)


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _tar_header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    return entry.tobuf(format=tarfile.GNU_FORMAT)
