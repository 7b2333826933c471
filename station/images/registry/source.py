"""A repository of an OCI registry as a source of trains' images.

A policy names an image by its config's digest; a registry finds manifests by tag or by their own digest. So a train's image has
the tag ``cfg-<hex of the config's digest>``: it says what it is, and a registry that moves it to another image is found out,
since the manifest's config must have the policy's digest. The manifest of the train (train.yaml) is a blob of the same repository,
asked for by its digest, or rides in the image manifest's annotation, where another tool copied no more than the image;
`pht-train push` makes both. The orchestrator is such a registry too.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policies.blobs import MAX_IMAGE_BYTES
from policies.bundle import MAX_MANIFEST_BYTES
from policies.documents import Digest, Sequence, digest_of, parse_json
from policies.errors import DocumentError, NetworkError, NotFoundError, WireError
from policies.image_config import MAX_LAYERS
from policies.wire.oci_trains import TRAIN_ANNOTATION, image_tag
from station.images.registry.client import RegistryClient
from station.images.sources import MAX_CONFIG, Packing, SourcedImage, SourcedLayer, layers_of_config

MAX_OCI_MANIFEST: Final = 1 << 20

_OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
_ACCEPT: Final = f"{_OCI_MANIFEST}, {_DOCKER_MANIFEST}"
_PACKINGS: Final[dict[str, Packing]] = {
    "application/vnd.oci.image.layer.v1.tar": "none",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar": "none",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
}


class _Document(BaseModel):
    # Registries and builders add keys (annotations, platform); these are what is used.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class _Descriptor(_Document):
    mediaType: Annotated[str, Field(max_length=255)]  # noqa: N815 - the specification's name
    digest: Digest
    size: Annotated[int, Field(ge=0, le=MAX_IMAGE_BYTES)]


class _Manifest(_Document):
    schemaVersion: Literal[2]  # noqa: N815
    config: _Descriptor
    layers: Annotated[Sequence[_Descriptor], Field(min_length=1, max_length=MAX_LAYERS)]
    annotations: dict[str, str] | None = None


class RegistrySource:
    """Implements `station.images.sources.ImageSource`."""

    name = "registry"

    def __init__(self, client: RegistryClient) -> None:
        """Ask this repository."""
        self._client = client

    def manifest(self, image_config_digest: str, manifest_digest: str) -> bytes:
        """Return a train's manifest, verified."""
        try:
            data = self._client.small(f"blobs/{manifest_digest}", accept="*/*", limit=MAX_MANIFEST_BYTES)
        except NotFoundError:
            annotations = self._image_manifest(image_config_digest).annotations or {}
            data = annotations.get(TRAIN_ANNOTATION, "").encode("utf-8", "surrogatepass")
            if digest_of(data) != manifest_digest:
                # Another train's on the same image, or none.
                raise
        if digest_of(data) != manifest_digest:
            raise WireError("a blob's bytes are not what its digest says")
        return data

    def find(self, image_config_digest: str) -> SourcedImage:
        """Say what makes an image."""
        manifest = self._image_manifest(image_config_digest)
        config = self._client.small(f"blobs/{image_config_digest}", accept="*/*", limit=MAX_CONFIG)
        wanted = layers_of_config(config, image_config_digest)
        if len(wanted) != len(manifest.layers):
            raise WireError("the registry's manifest lists other layers than the image's config names")
        layers = tuple(
            SourcedLayer(diff_id, layer.digest, layer.size, _packing(layer.mediaType))
            for diff_id, layer in zip(wanted, manifest.layers, strict=True)
        )
        return SourcedImage(config, layers)

    def download(self, layer: SourcedLayer, path: Path) -> int:
        """Bring a layer's bytes into a file."""
        return self._client.download(layer.digest, layer.size, path)

    def _image_manifest(self, config_digest: str) -> _Manifest:
        data = self._client.small(
            f"manifests/{image_tag(config_digest)}", accept=_ACCEPT, limit=MAX_OCI_MANIFEST
        )
        try:
            manifest = _Manifest.model_validate(
                parse_json(data, what="image manifest", max_bytes=MAX_OCI_MANIFEST)
            )
        except (DocumentError, ValidationError) as error:
            raise NetworkError("the registry's manifest is not one of a single image") from error
        if manifest.config.digest != config_digest:
            raise WireError("the registry has another image under the tag of this one")
        return manifest


def _packing(media_type: str) -> Packing:
    packing = _PACKINGS.get(media_type)
    if packing is None:
        raise WireError(
            "a layer is packed in a form that is not read here",
            hint="Push it again with gzip: `pht-train push`, or `skopeo copy --dest-compress-format gzip`.",
        )
    return packing
