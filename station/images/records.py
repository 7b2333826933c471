"""What the station remembers of its images and layers, as small files beside the blobs.

    layers/sha256/<hex>      blobs: configs, uncompressed layers, manifests
    layers/images/<hex>      an image, by its config: layers, manifests, where it came from, when it was last used
    layers/findings/<hex>    what was found in a layer when it was read through, or why it was refused
    layers/incoming/<hex>    bytes on their way, continued by the next try

Every file is written whole or not at all. A record names blobs; a blob without a record is nobody's and goes at the next collection.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from policies.documents import Digest, Moment, Sequence, StrictModel, canonical_json, load_json
from policies.errors import DocumentError, StorageError
from policies.files import write_atomically
from policies.image_config import MAX_LAYERS
from policies.layers import LayerFault, LayerFinding, LayerRefusedError
from policies.layers.reader import VERSION

_HEX: Final = re.compile(r"[0-9a-f]{64}")
_MAX_BYTES: Final = 64 << 10
_MAX_MANIFESTS: Final = 64


class ImageRecord(StrictModel):
    """One image in the store.

    Attributes:
        config_digest: its identity as policies name it.
        layers: its diff ids, lowest first.
        manifests: the manifests of trains that were asked for with it.
        source: where it was fetched from.
        fetched: when it was whole.
        used: when a run last asked for it.
        leaving: its removal has begun.
    """

    format: Literal[1] = 1
    config_digest: Digest
    layers: Annotated[Sequence[Digest], Field(max_length=MAX_LAYERS)]
    manifests: Annotated[Sequence[Digest], Field(max_length=_MAX_MANIFESTS)] = ()
    source: Annotated[str, Field(max_length=64)] = ""
    fetched: Moment
    used: Moment
    leaving: bool = False

    def blobs(self) -> tuple[str, ...]:
        """Return the digests of every blob it needs."""
        return (*self.layers, *self.manifests, self.config_digest)


class LayerRecord(StrictModel):
    """What was found in a layer.

    Attributes:
        digest: of its uncompressed bytes.
        version: of the reader that found it.
        finding: what it holds, where it was taken.
        fault: why it was not taken, otherwise.
        entry: which entry of it.
    """

    format: Literal[1] = 1
    digest: Digest
    version: int = VERSION
    finding: LayerFinding | None = None
    fault: Annotated[LayerFault | None, Field(strict=False)] = None
    entry: int = 0


class Records:
    """Reads and writes them, under the store's root."""

    def __init__(self, root: Path) -> None:
        """Use a folder; it is made with the first record."""
        self._images = root / "images"
        self._findings = root / "findings"

    def image(self, config_digest: str) -> ImageRecord | None:
        """Return an image's record; None where there is none, or none that can be read."""
        data = _read(self._images / _name(config_digest))
        try:
            found = None if data is None else load_json(ImageRecord, data, what="image record")
        except DocumentError:
            return None
        return found if found is not None and found.config_digest == config_digest else None

    def images(self) -> Iterator[ImageRecord]:
        """Yield every image's record."""
        for digest in _digests(self._images):
            found = self.image(digest)
            if found is not None:
                yield found

    def write_image(self, record: ImageRecord) -> None:
        """Write an image's record.

        Raises:
            StorageError: the disk.
        """
        write_atomically(self._images / _name(record.config_digest), canonical_json(record), mode=0o640)

    def remove_image(self, config_digest: str) -> None:
        """Remove an image's record."""
        _remove(self._images / _name(config_digest))

    def layer(self, digest: str) -> LayerFinding | None:
        """Return what was found in a layer; None where no reader of today's version has read it.

        Raises:
            LayerRefusedError: it was refused.
        """
        data = _read(self._findings / _name(digest))
        try:
            found = None if data is None else load_json(LayerRecord, data, what="layer record")
        except DocumentError:
            return None
        if found is None or found.digest != digest or found.version != VERSION:
            return None
        if found.fault is not None:
            raise LayerRefusedError(found.fault, found.entry)
        return found.finding

    def write_layer(self, record: LayerRecord) -> None:
        """Write what was found in a layer.

        Raises:
            StorageError: the disk.
        """
        write_atomically(self._findings / _name(record.digest), canonical_json(record), mode=0o640)

    def remove_layer(self, digest: str) -> None:
        """Forget a layer that was taken; that one was refused is remembered, so that it is not fetched again."""
        try:
            self.layer(digest)
        except LayerRefusedError:
            return
        _remove(self._findings / _name(digest))

    def layers(self) -> Iterator[str]:
        """Yield the digests of all layers that something is remembered of."""
        return _digests(self._findings)


def _name(digest: str) -> str:
    name = digest.removeprefix("sha256:")
    if not _HEX.fullmatch(name):
        raise DocumentError("a blob is named by sha256:<64 lower-case hex digits>")
    return name


def _digests(folder: Path) -> Iterator[str]:
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return
    yield from (f"sha256:{name}" for name in names if _HEX.fullmatch(name))


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"a record of the layer store cannot be read ({error.strerror})") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"a record of the layer store cannot be removed ({error.strerror})") from error
