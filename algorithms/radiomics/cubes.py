"""A lesion on cubes of one size, by the interpolation that IBSI prescribes: trilinear, on a grid about the middle of the whole scan.

Only the part around the lesion is read and interpolated. Trilinear values depend on their neighbours alone, so they are the very ones
that interpolating the whole scan would give: a test compares them with MIRP's.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_AROUND: Final = 2
"""Cubes beyond the lesion's on each side."""
_INSIDE: Final = 0.5
"""A cube belongs to the lesion from this share on (IBSI reference manual, section 2.4)."""
_NO_CUBE: Final = 1e-3
_MOST: Final = 5_000_000
"""Around a region: 40 litres of cubes of 2 mm. MIRP takes 150 bytes of each, and the train has 1536 MiB."""
_SLAB: Final = 8
"""Cubes along the first axis that are interpolated at a time."""


class TooManyCubesError(ValueError):
    """The box around a region has more cubes than fit."""


def on_cubes(
    hounsfield: NDArray[Any],
    region: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    side_mm: float,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return whole Hounsfield units and the region on cubes, around the region alone.

    Args:
        hounsfield: of the whole scan; may be mapped.
        region: likewise; not empty.
        spacing_mm: along each axis.
        side_mm: of the cubes.

    Raises:
        TooManyCubesError: the region's pieces lie so far apart that the cubes between them do not fit the train's memory.
    """
    wanted = []
    for axis, step in enumerate(spacing_mm):
        held = np.flatnonzero(region.any(axis=tuple({0, 1, 2} - {axis})))
        wanted.append(_grid(region.shape[axis], side_mm / step, int(held[0]), int(held[-1])))
    shape = tuple(len(at) for at in wanted)
    if math.prod(shape) > _MOST:
        raise TooManyCubesError
    values, inside = np.empty(shape), np.empty(shape, bool)
    for low in range(0, shape[0], _SLAB):
        slab = slice(low, low + _SLAB)
        values[slab], inside[slab] = _interpolated(hounsfield, region, [wanted[0][slab], *wanted[1:]])
    return values, inside


def _interpolated(
    hounsfield: NDArray[Any], region: NDArray[np.bool_], wanted: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return units and region at places along each axis, told in the scan's voxels; nothing further off is read."""
    places, box = [], []
    for at, length in zip(wanted, region.shape, strict=True):
        first = min(max(0, math.floor(at[0])), length - 1)
        box.append(slice(first, min(length, math.ceil(at[-1]) + 2)))
        places.append(at - first)
    at_cubes = np.stack(np.meshgrid(*places, indexing="ij"))
    cut = tuple(box)
    values = ndimage.map_coordinates(
        np.asarray(hounsfield[cut], np.float64), at_cubes, order=1, mode="nearest"
    )
    share = ndimage.map_coordinates(region[cut].astype(np.float64), at_cubes, order=1, mode="constant")
    # Shares are sums of eighths of rounding: half is half.
    return np.rint(values), np.round(share, 6) >= _INSIDE


def _grid(length: int, step: float, first: int, last: int) -> NDArray[np.float64]:
    """Return where cubes' middles lie along an axis, in voxels: those of the whole scan's grid about the voxels first to last.

    >>> _grid(4, 2.0, 0, 3).tolist()
    [0.5, 2.5]
    """
    # A header's float32 spacing is off by a ten-millionth: that is no cube more, which would move all others by half a side.
    number = math.ceil(length / step - _NO_CUBE)
    start = (length - 1 - (number - 1) * step) / 2
    low = max(0, math.floor((first - start) / step) - _AROUND)
    high = min(number - 1, math.ceil((last - start) / step) + _AROUND)
    return start + step * np.arange(low, high + 1, dtype=np.float64)
