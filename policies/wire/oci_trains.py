"""How a train looks in an OCI registry: what `pht-train push` writes, what the orchestrator serves, what a station looks for.

An image of a train is an ordinary image manifest. It carries the train's manifest (train.yaml) as it is in an annotation, so that one
manifest is the whole train, whichever tool copies it. The same text is a blob of the same repository, kept there by an
artifact of its own. Image specification 1.1, "Image Manifest" and "Guidelines for Artifact Usage".
"""

from typing import Final

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
EMPTY_JSON: Final = b"{}"
TRAIN_TYPE: Final = "application/vnd.pht.train.v1+yaml"
"""The type of the artifact that holds a train.yaml, and of the blob."""

TRAIN_ANNOTATION: Final = "org.pht.train.v1"
MAX_ANNOTATED_BYTES: Final = 256 << 10
"""A larger train.yaml travels as a blob alone: registries take manifests of some megabytes, some less."""


def image_tag(config_digest: str) -> str:
    """Return the tag under which a registry has the image with this config.

    >>> image_tag("sha256:" + "0" * 64)[:8]
    'cfg-0000'
    """
    return "cfg-" + config_digest.removeprefix("sha256:")


def train_tag(manifest_digest: str) -> str:
    """Return the tag of the artifact with the train.yaml of this digest."""
    return "train-" + manifest_digest.removeprefix("sha256:")


def train_annotation(text: bytes) -> dict[str, str]:
    """Return the annotation that carries a train.yaml; none where it is too large, or no UTF-8."""
    if len(text) > MAX_ANNOTATED_BYTES:
        return {}
    try:
        return {TRAIN_ANNOTATION: text.decode("utf-8")}
    except UnicodeDecodeError:
        return {}
