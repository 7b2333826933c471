"""The index of a bundle: which blobs a train consists of.

A bundle is this index (JSON), the image's config blob, its layers as uncompressed tar blobs, and the manifest's blob. They are
moved by digest, see `policies.blobs`.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from policies.blobs import MAX_IMAGE_BYTES, Blob
from policies.documents import Sequence, StrictModel, canonical_json, load_json
from policies.errors import DocumentError
from policies.image_config import MAX_CONFIG_BYTES, MAX_LAYERS

MAX_MANIFEST_BYTES: Final = 1 << 20
MAX_INDEX_BYTES: Final = 1 << 18


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
