"""Follows the trachea and the main bronchi down a chest CT, so that their air is not counted as lung.

Per axial layer the lumen is a compact dark spot: the first that goes on for a few centimetres, near the middle, is the trachea. It is
followed from layer to layer, through its division, until a spot is no airway any more but has run into a lung. The airways within the
lungs stay part of them, as in most quantitative CT. Where no trachea is seen (a scan that begins below it) nothing is taken
out.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from algorithms.ct_lung_involvement.grid import Grid

Mask = NDArray[np.bool_]

IN_LAYER: Final = np.zeros((3, 3, 3), bool)
"""Neighbours within an axial layer."""
IN_LAYER[:, 1, 1] = True
IN_LAYER[1, :, 1] = True

_LUMEN_BELOW_HU: Final = -920
_TRACHEA_MM2: Final = (40.0, 700.0)
"""A trachea's lumen: 10 to 27 mm wide in adults (Breatnach, Abbott, Fraser, AJR 142:903, 1984); less where slices blur it."""
_AIRWAYS_MM2: Final = 900.0
"""Of all lumens in a layer, at the trachea's division too."""
_GROWTH: Final = 1.8
"""From one layer to the next a lumen does not grow by more."""
_LEAST_MM: Final = 20.0
"""For so long a spot goes on downwards, to be a trachea."""
_OFF_MIDDLE_MM: Final = 45.0
_COMPACT: Final = 0.5
"""Of the rectangle around it, a spot covers at least this share; a circle covers 0.79."""
_WALL_MM: Final = 3.0
_TISSUE_FROM_HU: Final = -300


def airways_in(grid: Grid, air: Mask) -> Mask:
    """Return the trachea's and the main bronchi's air, with the half-dark blocks along their walls.

    Args:
        grid: upright.
        air: enclosed by the body.
    """
    nothing = np.zeros_like(air)
    spots, number = ndimage.label(air & (grid.hounsfield < _LUMEN_BELOW_HU), IN_LAYER)
    if number == 0:
        return nothing
    boxes = ndimage.find_objects(spots)
    areas = np.bincount(spots.ravel(), minlength=number + 1) * grid.spacing_mm[0] * grid.spacing_mm[1]
    middle_mm = _middle_of_body_mm(grid)
    for layer in range(air.shape[2] - 1, -1, -1):
        for spot in np.unique(spots[:, :, layer])[1:]:
            if not _like_a_trachea(grid, boxes[spot - 1], float(areas[spot]), middle_mm):
                continue
            followed = _followed(grid, spots, areas, int(spot), layer)
            if followed is not None:
                return _with_walls(grid, followed) & air
    return nothing


def _like_a_trachea(grid: Grid, box: tuple[slice, ...], area_mm2: float, middle_mm: float) -> bool:
    """Whether a spot has a trachea's size, shape and place."""
    if not _TRACHEA_MM2[0] <= area_mm2 <= _TRACHEA_MM2[1]:
        return False
    width, depth = (
        (each.stop - each.start) * step for each, step in zip(box[:2], grid.spacing_mm[:2], strict=True)
    )
    off_middle = abs((box[0].start + box[0].stop - 1) / 2 * grid.spacing_mm[0] - middle_mm)
    return bool(
        off_middle <= _OFF_MIDDLE_MM
        and max(width, depth) <= 2.5 * min(width, depth)
        and area_mm2 >= _COMPACT * width * depth
    )


def _followed(grid: Grid, spots: NDArray[Any], areas: NDArray[Any], first: int, top: int) -> Mask | None:
    """Follow a lumen down from its first layer; None where it ends too soon to be a trachea."""
    found = np.zeros(spots.shape, bool)
    current = spots[:, :, top] == first
    area, layer = float(areas[first]), top
    while True:
        found[:, :, layer] = current
        layer -= 1
        if layer < 0:
            break
        here = spots[:, :, layer]
        touched = [each for each in np.unique(here[current]) if each and areas[each] <= _GROWTH * area]
        total = float(areas[touched].sum()) if touched else 0.0
        if not touched or total > _AIRWAYS_MM2:
            break
        current, area = np.isin(here, touched), max(total, _TRACHEA_MM2[0])
    length_mm = (top - layer) * grid.spacing_mm[2]
    return found if length_mm >= _LEAST_MM else None


def _with_walls(grid: Grid, lumen: Mask) -> Mask:
    """Add what lies within a wall's thickness of a lumen, in its own layer."""
    steps = [int(_WALL_MM / step) for step in grid.spacing_mm[:2]]
    across, along = np.ogrid[-steps[0] : steps[0] + 1, -steps[1] : steps[1] + 1]
    near = (across * grid.spacing_mm[0]) ** 2 + (along * grid.spacing_mm[1]) ** 2 <= _WALL_MM**2
    return np.asarray(ndimage.binary_dilation(lumen, near[:, :, None]))


def _middle_of_body_mm(grid: Grid) -> float:
    """Return where the body's middle lies along the first axis, in millimetres from the first block."""
    tissue = (grid.hounsfield > _TISSUE_FROM_HU).sum(axis=(1, 2))
    if not tissue.any():
        return 0.0
    return float(np.average(np.arange(len(tissue)), weights=tissue)) * grid.spacing_mm[0]
