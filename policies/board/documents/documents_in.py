"""Reading what the board is given: a train (its manifest, alone or in a bundle), a policy, a charter, weights."""

from dataclasses import dataclass
from pathlib import Path

from policies.blobs import BlobFolder
from policies.bundle import MAX_MANIFEST_BYTES, BundleIndex
from policies.documents import digest_of, load_yaml
from policies.errors import DocumentError, PhtError
from policies.manifest import TrainManifest
from policies.wire.arrays import TensorShape, read_layout


@dataclass(frozen=True, slots=True)
class Train:
    """A train as the board sees it.

    Attributes:
        manifest: the parsed manifest.
        digest: of the manifest's bytes.
        image_digests: of the image configs that the manifest names, or that came with the bundle.
        layers: the bundle's layers and their bytes, where the train came as a bundle.
    """

    manifest: TrainManifest
    digest: str
    image_digests: tuple[str, ...]
    layers: tuple[tuple[str, int], ...] = ()


def read_train(path: Path) -> Train:
    """Read ``train.yaml``, or the folder (or index file) of a bundle.

    A bundle's folder holds ``bundle.json`` and a blob folder, ``blobs`` or the folder itself.

    Raises:
        DocumentError: neither, or the manifest is wrong.
        TrustError: the bundle's manifest has another digest than its index says.
    """
    index_path = path / "bundle.json" if path.is_dir() else path
    if index_path.suffix == ".json":
        return _read_bundle(index_path)
    data = read_file(path)
    manifest = load_yaml(TrainManifest, data, what=path.name)
    return Train(manifest, digest_of(data), tuple(image.config_digest for image in manifest.images))


def _read_bundle(index_path: Path) -> Train:
    index = BundleIndex.decode(read_file(index_path))
    folder = index_path.parent / "blobs"
    blobs = BlobFolder(folder if folder.is_dir() else index_path.parent)
    data = blobs.read_bytes(index.manifest.digest, max_bytes=MAX_MANIFEST_BYTES)
    manifest = load_yaml(TrainManifest, data, what="train.yaml")
    images = tuple(dict.fromkeys([index.config.digest, *(image.config_digest for image in manifest.images)]))
    layers = tuple((layer.digest, layer.size) for layer in index.layers)
    return Train(manifest, digest_of(data), images, layers)


def read_file(path: Path) -> bytes:
    """Read a small document.

    Raises:
        DocumentError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DocumentError(
            f"{path.name}: cannot be read ({error.strerror})",
            hint="Look at the path, and at who may read the file.",
        ) from error


def tensors_of(weights: Path | None) -> tuple[TensorShape, ...] | None:
    """Return the tensors that a safetensors file holds, or None without one.

    Raises:
        DocumentError: it is not such a file.
    """
    if weights is None:
        return None
    try:
        return read_layout(weights).tensors
    except PhtError as error:
        raise DocumentError(
            f"{weights.name}: {error.message}", hint="Give the initial weights as safetensors."
        ) from error


def is_policy(data: bytes) -> bool:
    """Say whether a YAML file is (meant as) a policy rather than a train's manifest, to read it as one."""
    return b"\nmanifest_digest:" in b"\n" + data
