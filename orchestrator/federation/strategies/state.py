"""What a strategy keeps between rounds: one file of arrays per moment, in the run's folder `strategy/`.

A file is named by the digest of its bytes and never changed. The files of a round are durable before the checkpoint names
them, and those of the round before are removed after it does: whatever instant a process dies at, the checkpoint names weights and
moments of one and the same round, and a round that is done again starts from the moments that it started from before. So no step
is taken twice.

Tensors stand in the order in which the weights' file has them, their names numbered for it: the moments of a file of weights
in several dtypes (all of them in float32, or float64 where the weights are) would stand in another order otherwise.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from policies.errors import StateError, StorageError, WireError
from policies.files import sync_folder
from policies.outputs import DType
from policies.wire.arrays import Array, ArrayLimits, TensorEntry, TensorShape, open_tensor, read_layout
from policies.wire.arrays_writing import ArraysWriter
from policies.wire.instructions import Blob

State = Mapping[str, Blob]
"""The moments of one round: what Flower calls each, to its file."""


class StrategyStateError(StateError):
    """The moments that a checkpoint names are not there, or not of these weights."""


def moment_shapes(tensors: Iterable[TensorShape]) -> dict[str, TensorShape]:
    """Return how a file of moments holds these tensors of the weights; by the weights' names, in the order given."""
    return {
        tensor.name: TensorShape(f"{number:05d}.{tensor.name}"[:200], _width(tensor.dtype), tensor.shape)
        for number, tensor in enumerate(tensors)
    }


def _width(dtype: DType) -> DType:
    return "float64" if dtype == "float64" else "float32"


@dataclass(frozen=True, slots=True)
class StateFiles:
    """The folder of one run's moments."""

    folder: Path

    def path(self, blob: Blob) -> Path:
        """Where a file of moments lies."""
        return self.folder / blob.digest.removeprefix("sha256:")

    def keep_only(self, state: State) -> None:
        """Remove every file but those of this state; call it when a checkpoint that names them is durable.

        Raises:
            StorageError: the disk.
        """
        kept = {self.path(blob).name for blob in state.values()}
        try:
            for path in self.folder.iterdir():
                if path.name not in kept:
                    path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"old moments of a strategy cannot be removed ({error.strerror})") from error

    def read(self, state: State, shapes: Mapping[str, TensorShape]) -> dict[str, "Moments"]:
        """Return the moments of the round before, by name; nothing where there was none.

        Raises:
            StrategyStateError: a file is missing, cut off, or of other weights.
        """
        return {name: self._read(blob, shapes) for name, blob in state.items()}

    def _read(self, blob: Blob, shapes: Mapping[str, TensorShape]) -> "Moments":
        path = self.path(blob)
        try:
            layout = read_layout(path, ArrayLimits(max_bytes=blob.size))
        except (StorageError, WireError) as error:
            raise StrategyStateError("the strategy's moments of the round before cannot be read") from error
        entries = layout.by_name()
        if layout.file_bytes != blob.size or set(layout.tensors) != set(shapes.values()):
            raise StrategyStateError("the strategy's moments of the round before are not of these weights")
        return Moments(path, {name: entries[shape.name] for name, shape in shapes.items()})

    def writer(self, moment: str, shapes: Mapping[str, TensorShape]) -> ArraysWriter:
        """Return a writer of one moment's new file, in a folder that is made where it is missing.

        Raises:
            StorageError: the disk.
        """
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError(f"the strategy's folder cannot be made ({error.strerror})") from error
        return ArraysWriter(self.folder / f".{moment}.new", shapes.values())

    def close(self, writer: ArraysWriter) -> Blob:
        """Put a file that was written completely in its place, durably.

        Raises:
            StorageError: the disk.
        """
        written = writer.close()
        blob = Blob(digest=written.digest, size=written.size)
        try:
            written.path.replace(self.path(blob))
            sync_folder(self.folder)
        except OSError as error:
            raise StorageError(f"the strategy's moments cannot be kept ({error.strerror})") from error
        return blob


@dataclass(frozen=True, slots=True)
class Moments:
    """One file of moments, open for reading; `entries` by the weights' names."""

    path: Path
    entries: Mapping[str, TensorEntry]

    def open(self, tensor: str) -> Array:
        """Map the moments of one tensor."""
        return open_tensor(self.path, self.entries[tensor])
