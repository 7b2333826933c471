"""Sends a bundle to an orchestrator's registry: only the blobs that it does not have."""

from collections.abc import Callable
from dataclasses import dataclass

from policies.wire.registry_client import RegistryClient
from train_images.tool.folders import PackedTrain

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Submitted:
    """What was sent.

    Attributes:
        moved_bytes: of blobs that the registry did not have.
        bytes: of the whole bundle.
        moved_blobs: how many blobs that were.
        blobs: how many the bundle has.
    """

    moved_bytes: int
    bytes: int
    moved_blobs: int
    blobs: int


def submit(train: PackedTrain, registry: RegistryClient, progress: Progress) -> Submitted:
    """Send what is missing of a bundle, then its index.

    Args:
        train: packed.
        registry: an open connection.
        progress: called with one line per blob that is sent.

    Raises:
        NetworkError, TrustError, RefusedError, UsageError: from the registry.
        NotFoundError: a blob is not in the bundle's folder.
    """
    blobs = train.index.blobs()
    missing = [blob for blob in blobs if not registry.has_blob(blob.digest)]
    for number, blob in enumerate(missing, 1):
        progress(f"sending {blob.digest[:19]} ({blob.size / 1e6:.1f} MB), {number} of {len(missing)}")
        # Its size here is asked first: a blob that is gone must not look like a fault of the network.
        train.store.size(blob.digest)
        registry.put_blob(train.store.path(blob.digest), digest=blob.digest)
    registry.put_bundle(train.manifest.name, train.manifest.version, train.index)
    return Submitted(sum(blob.size for blob in missing), train.size, len(missing), len(blobs))
