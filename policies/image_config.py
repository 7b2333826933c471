"""The config of a train's image: the layers that it names, and the one that a train without a program has.

Reads one JSON document and no layer. Invariant: `rootfs.diff_ids` are digests of uncompressed layers, lowest first, so that the
digest of the config stands for the whole image.
"""

from typing import Final

from pydantic import JsonValue

from policies.documents import canonical_json, is_digest
from policies.errors import DocumentError

MAX_LAYERS: Final = 127
MAX_CONFIG_BYTES: Final = 1 << 20


def diff_ids_of(config: JsonValue) -> tuple[str, ...]:
    """Return the digests of the uncompressed layers that an image config names, lowest first; none is no image to start.

    Raises:
        DocumentError: the config does not name them.
    """
    rootfs = config.get("rootfs") if isinstance(config, dict) else None
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(found, list) or len(found) > MAX_LAYERS:
        raise DocumentError(f"image config: rootfs.diff_ids must name at most {MAX_LAYERS} layers")
    digests = tuple(each for each in found if isinstance(each, str) and is_digest(each))
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
