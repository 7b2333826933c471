"""Reading volumes as MONAI transforms: whole ones, and patches drawn about structures; both work in a `Compose`.

An item is a dict as MONAI's `load_decathlon_datalist` gives it: paths under `image` and `label`. What comes out are `MetaTensor`s with
one channel, in RAS order, with the affine of just the box that was read, so that everything behind them in a `Compose` knows
where it is. `ReadVolumesd` before `RandPatchesd` keeps whole volumes in memory (what a `CacheDataset` caches); without it patches come
through the map. The same draws give the same patches either way.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from monai.utils import ImageMetaKey
from numpy.typing import NDArray

from algorithms.volumes.errors import GridError
from algorithms.volumes.grids import Grid, Shape
from algorithms.volumes.mapped import MappedVolume, open_volume
from algorithms.volumes.patches import FileSource, HeldSource, Source, Spacing

AIR_HU: Final = -1024.0
"""What lies outside a CT: what a station pads with."""

_MOST_CANDIDATES: Final = 1 << 15
"""Voxels of one structure that a patch's middle is drawn from; of more, evenly chosen ones."""


@dataclass(frozen=True, slots=True)
class ReadAs:
    """How the volumes of one key are read.

    Attributes:
        linear: interpolate; else the nearest voxel, as for label maps.
        padding: what lies outside.
    """

    linear: bool = True
    padding: float = AIR_HU


IMAGE: Final = ReadAs()
LABEL: Final = ReadAs(linear=False, padding=0.0)


@dataclass(frozen=True, slots=True)
class Reading:
    """Which keys are read, how, and on which grid.

    Attributes:
        keys: each with how it is read.
        spacing_mm: of the grid, axes in RAS order; None for the file's own.
    """

    keys: Mapping[str, ReadAs] = field(default_factory=lambda: {"image": IMAGE, "label": LABEL})
    spacing_mm: Spacing = None

    def source(self, key: str, value: object) -> Source:
        """Return where a key's voxels come from: a path's file, or a volume that was read."""
        if isinstance(value, MetaTensor):
            shape: Shape = (value.shape[1], value.shape[2], value.shape[3])
            return HeldSource(value.as_tensor()[0].numpy(), Grid(shape, value.affine.numpy()))
        return FileSource(open_volume(str(value)), self.spacing_mm, self.keys[key].linear)


def read_volume(path: str | Path, spacing_mm: Spacing = None, how: ReadAs = IMAGE) -> MetaTensor:
    """Read a whole volume.

    Args:
        path: of an uncompressed NIfTI.
        spacing_mm: of the grid to read it on, axes in RAS order; None for its own.
        how: interpolated or nearest.

    Returns:
        Of the file's own kind (int16, uint8, ...), or float32 where the file is scaled. Shape (1, x, y, z).

    Raises:
        VolumeError: the file is none that can be mapped.
    """
    source = FileSource(open_volume(path), spacing_mm, how.linear)
    return _tensor(source.read((0, 0, 0), source.grid.shape, how.padding), source.grid, path)


class ReadVolumesd(MapTransform):
    """Reads whole volumes: for what looks at all of one, and before `RandPatchesd` for a cache in memory."""

    def __init__(self, reading: Reading) -> None:
        """Take how to read.

        Args:
            reading: which keys, how, on which grid.
        """
        super().__init__(tuple(reading.keys))
        self._reading = reading

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with volumes in the place of paths.

        Raises:
            VolumeError: a file is none that can be mapped.
        """
        found = dict(data)
        for key in self.key_iterator(found):
            found[key] = read_volume(found[key], self._reading.spacing_mm, self._reading.keys[str(key)])
        return found


class RandPatchesd(Randomizable, MapTransform):
    """Draws patches: by chance about a voxel of a structure, or about any voxel of the volume.

    Structures of a label map are drawn with equal chance, so that a small one is seen as often as a large one; of a structure each
    voxel. A volume without structures gives patches from anywhere. A patch lies inside the volume where that is as large.
    """

    def __init__(
        self,
        reading: Reading,
        shape: Shape,
        *,
        count: int = 4,
        share_about_structures: float = 0.5,
        label_key: str = "label",
    ) -> None:
        """Take what to draw.

        Args:
            reading: which keys, how, on which grid.
            shape: of a patch, voxels.
            count: patches per item.
            share_about_structures: chance of a patch to lie about a structure, 0 to 1.
            label_key: the label map that says where structures are.
        """
        MapTransform.__init__(self, tuple(reading.keys))
        self._reading = reading
        self._shape = shape
        self._count = count
        self._share = share_about_structures
        self._label_key = label_key
        self._starts: list[tuple[int, int, int]] = []

    def randomize(self, data: Mapping[Hashable, Any]) -> None:
        """Draw where the patches begin.

        Raises:
            VolumeError: a file is none that can be mapped.
        """
        label = data[self._label_key]
        grid = self._reading.source(self._label_key, label).grid
        file = open_volume(
            label.meta[ImageMetaKey.FILENAME_OR_OBJ] if isinstance(label, MetaTensor) else label
        )
        places = places_of_structures(file)
        ratio = np.divide(file.grid.spacing_mm, grid.spacing_mm)
        self._starts = []
        for _ in range(self._count):
            # Always the same number of draws: what one patch is does not move the next.
            about, which, voxel = self.R.random(3)
            anywhere = self.R.random(3)
            if places and about < self._share:
                structure = places[int(which * len(places))]
                middle = np.rint(structure[int(voxel * len(structure))] * ratio)
            else:
                middle = np.floor(anywhere * grid.shape)
            self._starts.append(_start(middle, self._shape, grid.shape))

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Return the patches, each an item of its own; what else the item holds stands in each.

        Raises:
            GridError: the volumes do not lie on one grid.
            VolumeError: a file is none that can be mapped.
        """
        self.randomize(data)
        patches = [dict(data) for _ in self._starts]
        first: Grid | None = None
        for key in self.key_iterator(dict(data)):
            name = str(key)
            source = self._reading.source(name, data[key])
            first = first or source.grid
            if not source.grid.lies_on(first):
                raise GridError(
                    f"{name} does not lie on the grid of {self.keys[0]}: draw it on that very image"
                )
            for patch, start in zip(patches, self._starts, strict=True):
                box = source.read(start, self._shape, self._reading.keys[name].padding)
                patch[key] = _tensor(box, source.grid.part(start, self._shape), _path(data[key]))
        return patches


def places_of_structures(file: MappedVolume) -> list[NDArray[np.int16]]:
    """Return the voxels of each structure of a label map, in RAS order; at most some ten thousands of each. Shape (N, 3) each."""
    stored = file.stored()
    status = file.path.stat()
    return list(_places(file.path, stored.shape, status.st_size, status.st_mtime_ns, status.st_ino))


@lru_cache(maxsize=4096)
def _places(
    path: Path, shape: Shape, _size: int, _changed_ns: int, _inode: int
) -> tuple[NDArray[np.int16], ...]:
    file = open_volume(path)
    flat = file.stored().reshape(-1, order="F")
    occupied = np.flatnonzero(flat)
    values = np.asarray(flat[occupied])
    found = []
    for value in np.unique(values):
        mine = occupied[values == value]
        chosen = mine[np.linspace(0, len(mine) - 1, min(len(mine), _MOST_CANDIDATES)).astype(np.int64)]
        indices = np.stack(np.unravel_index(chosen, shape, order="F"), axis=1)
        # An axis of a NIfTI-1 file has at most 32767 voxels, and these are kept for every case.
        found.append(_in_ras_order(indices, file).astype(np.int16))
    return tuple(found)


def _in_ras_order(indices: NDArray[np.int64], file: MappedVolume) -> NDArray[np.int64]:
    turned = np.empty_like(indices)
    for axis, (target, sense) in enumerate(file.stored_grid.orientation):
        size = file.stored_grid.shape[axis]
        turned[:, int(target)] = indices[:, axis] if sense > 0 else size - 1 - indices[:, axis]
    return turned


def _start(middle: NDArray[np.float64], shape: Shape, whole: Shape) -> tuple[int, int, int]:
    starts = []
    for place, size, most in zip(middle, shape, whole, strict=True):
        if size >= most:
            starts.append(-((size - most) // 2))
        else:
            starts.append(min(max(int(place) - size // 2, 0), most - size))
    return starts[0], starts[1], starts[2]


def _tensor(box: NDArray[Any], grid: Grid, path: str | Path) -> MetaTensor:
    if box.dtype == np.uint16:
        box = box.astype(np.int32)  # torch knows uint16 and computes little with it
    affine = torch.from_numpy(np.array(grid.affine))
    return MetaTensor(
        torch.from_numpy(box[None]), affine=affine, meta={ImageMetaKey.FILENAME_OR_OBJ: str(path)}
    )


def _path(value: object) -> str | Path:
    return str(value.meta[ImageMetaKey.FILENAME_OR_OBJ]) if isinstance(value, MetaTensor) else str(value)
