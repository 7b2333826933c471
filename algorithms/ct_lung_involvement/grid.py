"""A volume at about two millimetres: where lungs are is found there, and counted on the scanner's own voxels.

Blocks of whole voxels are averaged, so that every voxel of the scan belongs to exactly one block and nothing is interpolated.
Averaging also takes most of the noise away, which would otherwise tear the lungs where they are dense.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from algorithms.one_patient import Volume

_BLOCK_MM: Final = 2.2
"""No block is longer than this where the scan's own voxels are shorter."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Blocks of a volume.

    Attributes:
        hounsfield: their means, rounded.
        block: voxels per block along each axis; the last block of an axis may have fewer.
        affine: from block indices to RAS millimetres, of the blocks' middles.
    """

    hounsfield: NDArray[np.int16]
    block: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Millimetres from block to block along each axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def block_ml(self) -> float:
        """Millilitres in one whole block."""
        return float(np.prod(self.spacing_mm)) / 1000

    def height_mm(self) -> NDArray[np.float64]:
        """Return how far towards the head each block lies, in the patient's own millimetres; broadcasts to the grid."""
        x, y, z = np.ogrid[tuple(slice(side) for side in self.hounsfield.shape)]
        up = self.affine[2]
        return np.asarray(up[0] * x + up[1] * y + up[2] * z + up[3])


def blocks_of(volume: Volume) -> Grid:
    """Average a volume in blocks, a layer of blocks at a time, so that a mapped scan is never in memory as a whole."""
    block = tuple(max(1, int(_BLOCK_MM / step)) for step in volume.spacing_mm)
    starts = [np.arange(0, side, width) for side, width in zip(volume.voxels.shape, block, strict=True)]
    means = np.empty([len(each) for each in starts], np.int16)
    for layer, first in enumerate(starts[2]):
        part = np.asarray(volume.voxels[:, :, first : first + block[2]], np.int32)
        sums = part.sum(axis=2)
        for axis in (0, 1):
            sums = np.add.reduceat(sums, starts[axis], axis=axis)
        widths = [_widths(starts[axis], volume.voxels.shape[axis]) for axis in (0, 1)]
        count = widths[0][:, None] * widths[1][None, :] * part.shape[2]
        means[:, :, layer] = np.rint(sums / count)
    affine = volume.affine @ np.diag([*map(float, block), 1.0])
    affine[:3, 3] = volume.affine[:3, 3] + volume.affine[:3, :3] @ ((np.array(block) - 1) / 2)
    return Grid(means, (block[0], block[1], block[2]), affine)


def _widths(starts: NDArray[Any], side: int) -> NDArray[Any]:
    return np.diff([*starts, side])


def slices_with(
    volume: Volume, grid: Grid, regions: NDArray[np.uint8]
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield, slice by slice, the Hounsfield units of the scan's own voxels that lie in a region, and which region each lies in.

    Args:
        volume: that the grid was made of.
        grid: its blocks.
        regions: per block, 0 outside.
    """
    width, depth, _ = volume.voxels.shape
    for layer in np.flatnonzero(regions.any(axis=(0, 1))):
        spread = regions[:, :, layer].repeat(grid.block[0], 0).repeat(grid.block[1], 1)[:width, :depth]
        inside = spread > 0
        chosen = spread[inside]
        first = int(layer) * grid.block[2]
        for number in range(first, min(first + grid.block[2], volume.voxels.shape[2])):
            yield np.asarray(volume.voxels[:, :, number])[inside], chosen
