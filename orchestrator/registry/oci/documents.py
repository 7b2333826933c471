"""Manifests of the distribution API: reads what is pushed, writes what a bundle looks like that came another way.

Reads two forms of one thing (OCI's and Docker's image manifest) and the artifact with a train.yaml. Invariant: the manifest of a
bundle is always the same bytes, so that its digest can be kept.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.registry.oci.faults import OciCode, OciError
from policies.blobs import MAX_IMAGE_BYTES
from policies.bundle import BundleIndex
from policies.documents import Digest, canonical_json, digest_of, parse_json
from policies.errors import DocumentError
from policies.image_config import MAX_LAYERS
from policies.wire.oci_trains import (
    EMPTY_JSON,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    TRAIN_TYPE,
    train_annotation,
)

MAX_MANIFEST: Final = 4 << 20
"""What registries are asked to take (specification, "Pushing Manifests")."""

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
EMPTY_DIGEST: Final = digest_of(EMPTY_JSON)
_CONFIGS: Final = frozenset({OCI_CONFIG, "application/vnd.docker.container.image.v1+json"})
_PLAIN: Final = frozenset({OCI_LAYER, "application/vnd.docker.image.rootfs.diff.tar"})
_GZIP: Final = frozenset({OCI_LAYER + "+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"})
_INDEXES: Final = frozenset({OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"})


class _Document(BaseModel):
    # Builders add keys (platform, urls, data); these are what is used, and the bytes are kept as they came.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Descriptor(_Document):
    """A blob or a manifest that another document names."""

    mediaType: Annotated[str, Field(max_length=255)]  # noqa: N815 - the specification's name
    digest: Digest
    size: Annotated[int, Field(ge=0, le=MAX_IMAGE_BYTES)]

    @property
    def is_plain_layer(self) -> bool:
        """Whether it is a layer as a bundle has it."""
        return self.mediaType in _PLAIN

    @property
    def is_gzip_layer(self) -> bool:
        """Whether it is a layer that gzip packed."""
        return self.mediaType in _GZIP


class Manifest(_Document):
    """An image manifest, or an artifact in its form."""

    schemaVersion: Literal[2]  # noqa: N815
    mediaType: str | None = None  # noqa: N815
    artifactType: Annotated[str, Field(max_length=255)] | None = None  # noqa: N815
    config: Descriptor
    layers: Annotated[list[Descriptor], Field(max_length=MAX_LAYERS)]
    subject: Descriptor | None = None
    annotations: dict[str, str] = Field(default_factory=dict)

    @property
    def is_image(self) -> bool:
        """Whether it is an image that could be started."""
        return self.config.mediaType in _CONFIGS and self.artifactType is None

    @property
    def is_train_text(self) -> bool:
        """Whether it is the artifact with a train.yaml."""
        kind = self.artifactType or self.config.mediaType
        return kind == TRAIN_TYPE and len(self.layers) == 1 and self.layers[0].mediaType == TRAIN_TYPE


@dataclass(frozen=True, slots=True)
class Stored:
    """A manifest that is served.

    Attributes:
        media_type: what it is served as.
        body: its bytes.
    """

    media_type: str
    body: bytes

    @property
    def digest(self) -> Digest:
        """What it is asked for by."""
        return digest_of(self.body)


def read_manifest(body: bytes, media_type: str) -> Manifest:
    """Read what was pushed.

    Args:
        body: its bytes.
        media_type: what the request says it is, without parameters.

    Raises:
        OciError: it is no manifest, or of a kind that is not taken here.
    """
    if media_type in _INDEXES:
        raise OciError(
            OciCode.UNSUPPORTED, "indexes are not taken: push each image of a train by itself", status=400
        )
    if media_type not in {OCI_MANIFEST, DOCKER_MANIFEST}:
        raise OciError(OciCode.MANIFEST_INVALID, "a manifest of this media type is not known here")
    try:
        manifest = Manifest.model_validate(parse_json(body, what="manifest", max_bytes=MAX_MANIFEST))
    except ValidationError as error:
        where = "; ".join(".".join(map(str, item["loc"]))[:60] for item in error.errors()[:4])
        raise OciError(OciCode.MANIFEST_INVALID, f"the manifest does not fit: {where}") from error
    except DocumentError as error:
        raise OciError(OciCode.MANIFEST_INVALID, error.message) from error
    if manifest.mediaType not in {None, media_type}:
        raise OciError(OciCode.MANIFEST_INVALID, "the manifest's mediaType is not the request's Content-Type")
    if not (manifest.is_image or manifest.is_train_text):
        raise OciError(
            OciCode.UNSUPPORTED, "only images of trains, and their train.yaml, are taken here", status=400
        )
    return manifest


def image_of(index: BundleIndex, name: str, version: str, text: bytes) -> Stored:
    """Return the image manifest of a bundle: its layers as they are, and its train.yaml in the annotation."""
    return _stored(
        {
            "config": _described(OCI_CONFIG, index.config.digest, index.config.size),
            "layers": [_described(OCI_LAYER, layer.digest, layer.size) for layer in index.layers],
            "annotations": {
                "org.opencontainers.image.title": name,
                "org.opencontainers.image.version": version,
                **train_annotation(text),
            },
        }
    )


def train_of(index: BundleIndex) -> Stored:
    """Return the artifact that holds a bundle's train.yaml."""
    return _stored(
        {
            "artifactType": TRAIN_TYPE,
            "config": _described(OCI_EMPTY, EMPTY_DIGEST, len(EMPTY_JSON)),
            "layers": [_described(TRAIN_TYPE, index.manifest.digest, index.manifest.size)],
        }
    )


def referrers_of(entries: list[dict[str, object]]) -> bytes:
    """Return the index that the referrers' address answers with."""
    return canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


def referrer(stored: Stored, artifact_type: str, annotations: dict[str, str]) -> dict[str, object]:
    """Return one entry of that index."""
    entry: dict[str, object] = {
        **_described(stored.media_type, stored.digest, len(stored.body)),
        "artifactType": artifact_type,
    }
    return {**entry, "annotations": annotations} if annotations else entry


def _described(media_type: str, digest: Digest, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _stored(parts: dict[str, object]) -> Stored:
    return Stored(OCI_MANIFEST, canonical_json({"schemaVersion": 2, "mediaType": OCI_MANIFEST, **parts}))
