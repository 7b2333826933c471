"""What the researcher works with on disk: a train's folder, and the folder of a packed bundle.

    my-train/   Dockerfile, train.yaml, the train's own files
    bundle/     bundle.json, train.yaml (with the image's digest), blobs/sha256/<hex>

Reads; writes nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.blobs import BlobFolder
from policies.bundle import MAX_INDEX_BYTES, MAX_MANIFEST_BYTES, BundleIndex
from policies.documents import load_yaml
from policies.errors import DocumentError, NotFoundError
from policies.manifest import TrainManifest

MANIFEST: Final = "train.yaml"
DOCKERFILE: Final = "Dockerfile"
INDEX: Final = "bundle.json"
BLOBS: Final = "blobs"


@dataclass(frozen=True, slots=True)
class TrainFolder:
    """A train as its author keeps it.

    Attributes:
        path: the folder.
        text: the manifest's bytes as the author wrote them.
        manifest: parsed.
    """

    path: Path
    text: bytes
    manifest: TrainManifest

    def tag_of(self, variant: str) -> str:
        """Return the image's name for a variant where no other is asked for."""
        other = "" if variant == "cpu" else f"-{variant}"
        return f"pht-{self.manifest.name}:{self.manifest.version}{other}"


@dataclass(frozen=True, slots=True)
class PackedTrain:
    """A bundle on disk.

    Attributes:
        path: its folder.
        index: which blobs it consists of.
        manifest: parsed from the blob that the index names.
        store: the blobs.
    """

    path: Path
    index: BundleIndex
    manifest: TrainManifest
    store: BlobFolder

    @property
    def size(self) -> int:
        """The bytes of all blobs together."""
        return sum(blob.size for blob in self.index.blobs())


def read_folder(path: Path) -> TrainFolder:
    """Read a train's folder.

    Raises:
        NotFoundError: it is none.
        DocumentError: the manifest is wrong; names the key and the line.
    """
    if not path.is_dir():
        raise NotFoundError(f"{path}: there is no such folder")
    text = _read(path / MANIFEST, MAX_MANIFEST_BYTES, "A train's folder holds a train.yaml and a Dockerfile.")
    return TrainFolder(path, text, load_yaml(TrainManifest, text, what=MANIFEST))


def read_bundle(path: Path) -> PackedTrain:
    """Read the folder (or the index file) of a bundle.

    Raises:
        NotFoundError: there is none.
        DocumentError: its index or its manifest is wrong.
        TrustError: its manifest has another digest than the index says.
    """
    folder = path if path.is_dir() else path.parent
    hint = "Make a bundle with `pht-train pack`."
    if (folder / MANIFEST).is_file() and not (folder / INDEX).exists():
        hint = f"This is a train's folder: pht-train build {folder}, then pht-train pack {folder} OUT, and name OUT here."
    data = _read(folder / INDEX, MAX_INDEX_BYTES, hint)
    index = BundleIndex.decode(data)
    store = BlobFolder(folder / BLOBS)
    text = store.read_bytes(index.manifest.digest, max_bytes=MAX_MANIFEST_BYTES)
    return PackedTrain(folder, index, load_yaml(TrainManifest, text, what=MANIFEST), store)


def _read(path: Path, max_bytes: int, hint: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path.parent}: holds no {path.name}", hint=hint) from error
    except OSError as error:
        raise DocumentError(f"{path.name}: cannot be read ({error.strerror})") from error
    if len(data) > max_bytes:
        raise DocumentError(f"{path.name}: larger than {max_bytes} bytes")
    return data
