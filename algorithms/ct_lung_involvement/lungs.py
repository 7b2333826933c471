"""Finds the lungs on a chest CT by thresholds and shape, without anything learnt.

    1. air       darker than -400 HU and enclosed by the body in its axial layer: lungs, airways, gas in the bowel
    2. airways   the trachea and the main bronchi, followed down from the top, are taken out
    3. pieces    the largest that remain, if they are as dense as lung
    4. sides     left and right, told apart also where they touch in front or behind
    5. closed    per side: vessels are filled in by a small ball's closing, consolidation that reaches the chest wall by a large one's
    6. rim       the outermost blocks are not counted: half lung and half chest wall, they would pass for ground glass

Thresholding and closing are what quantitative CT has long done (Hu, Hoffman, Reinhardt, IEEE Trans Med Imaging 20:490, 2001). It
finds a lung by its air: of a lobe without any left only what the ball closes is found (Sluimer, Niemeijer, van Ginneken, Proc
SPIE 5370:1447, 2004).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from algorithms.ct_lung_involvement.airways import IN_LAYER, airways_in
from algorithms.ct_lung_involvement.grid import Grid

Mask = NDArray[np.bool_]
Box = tuple[slice, ...]

AIR_BELOW_HU: Final = -400
"""Halfway between aerated lung and soft tissue: where the edge of a lung lies on a blurred picture."""
_GAS_BELOW_HU: Final = -970
"""A piece whose median is darker is no lung but gas: bowel, stomach, pneumothorax, a hollow in the table."""
_BONE_FROM_HU: Final = 300
_SMALLEST_ML: Final = 150.0
"""Of both lungs together; a scan that shows less is not measured."""
_SMALLEST_SHARE: Final = 0.05
"""A piece smaller than this share of the largest is left out."""
_BOTH_SHARE: Final = 0.25
"""Two pieces count as two lungs when the smaller is at least this share of the larger."""
_NECKS_MM: Final = (0.0, 3.0, 5.0, 7.0, 9.0, 12.0)
"""How thick a bridge between the lungs may be, tried in turn."""

_SHELL_MM: Final = 2.0
_VESSELS_MM: Final = 8.0
"""The radius of the ball that closes a lung all around: it fills vessels up to the hilum."""
_ROOM_MM: Final = 45.0
"""Around a lung: more than any ball's radius."""


class NoLungsError(ValueError):
    """Nothing on the scan looks like lungs."""


@dataclass(frozen=True, slots=True)
class Lungs:
    """What was found, on the grid's blocks.

    Attributes:
        whole: both lungs, closed.
        inside: likewise without their rim: what is counted.
    """

    whole: Mask
    inside: Mask


def find_lungs(grid: Grid, *, closing_mm: float, rim_mm: float) -> Lungs:
    """Find both lungs.

    Args:
        grid: of a scan whose axes are upright: right, front, head.
        closing_mm: radius of the ball that closes each lung towards the chest wall.
        rim_mm: how thick the rim is that is not counted.

    Raises:
        NoLungsError: nothing is as large and as dense as lungs.
    """
    enclosed = _enclosed_air(grid)
    airways = airways_in(grid, enclosed)
    aerated = _lung_pieces(grid, enclosed & ~airways)
    fillable = (grid.hounsfield < _BONE_FROM_HU) & ~airways
    whole = aerated.copy()
    middle = _middle(aerated)
    for box, side in _sides(grid, aerated):
        filled = _closed(side, grid.spacing_mm, min(closing_mm, _VESSELS_MM))
        filled |= _closed(side, grid.spacing_mm, closing_mm) & _towards_the_wall(side, middle - box[0].start)
        whole[box] |= filled & fillable[box]
    if rim_mm <= 0:
        return Lungs(whole, whole)
    # One block at least, whatever its size: it is half outside.
    rim_mm = max(rim_mm, 1.001 * max(grid.spacing_mm[:2]))
    inside = np.zeros_like(whole)
    box = _box_of(whole, grid, rim_mm)
    inside[box] = ndimage.distance_transform_edt(whole[box], grid.spacing_mm) > rim_mm
    return Lungs(whole, inside)


def _enclosed_air(grid: Grid) -> Mask:
    """Return air that the body encloses in its layer: the trachea's way out through the mouth does not count, nor a hollow table."""
    around, _ = ndimage.label(~_body_tissue(grid), IN_LAYER)
    border = np.concatenate([np.ravel(edge) for edge in (around[[0, -1]], around[:, [0, -1]])])
    outside = np.zeros(int(around.max()) + 1, bool)
    outside[border] = True
    outside[0] = True
    return np.asarray(~outside[around] & (grid.hounsfield < AIR_BELOW_HU))


def _body_tissue(grid: Grid) -> Mask:
    """Return the largest piece of tissue; what hangs together with it only by something as thin as a table's shell is none of it."""
    tissue = grid.hounsfield >= AIR_BELOW_HU
    worn = round(_SHELL_MM / max(grid.spacing_mm[:2]))
    thick = ndimage.binary_erosion(tissue, IN_LAYER, worn, border_value=1) if worn else tissue
    pieces, number = ndimage.label(thick)
    if number == 0:
        raise NoLungsError
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    body = pieces == int(sizes.argmax())
    # Thin walls beside thick ones come back, and little of a shell.
    return np.asarray(ndimage.binary_dilation(body, IN_LAYER, 3 * worn, mask=tissue) if worn else body)


def _lung_pieces(grid: Grid, air: Mask) -> Mask:
    """Return the pieces of enclosed air that are lung by size and density.

    Raises:
        NoLungsError: they are too small.
    """
    pieces, number = ndimage.label(air)
    sizes = np.bincount(pieces.ravel(), minlength=number + 1)
    sizes[0] = 0
    found: list[int] = []
    for piece in np.argsort(sizes)[::-1]:
        if sizes[piece] == 0 or (found and sizes[piece] < _SMALLEST_SHARE * sizes[found[0]]):
            break
        if np.median(grid.hounsfield[pieces == piece]) >= _GAS_BELOW_HU:
            found.append(int(piece))
    if sizes[found].sum() * grid.block_ml < _SMALLEST_ML:
        raise NoLungsError
    wanted = np.zeros(number + 1, bool)
    wanted[found] = True
    return np.asarray(wanted[pieces])


def _sides(grid: Grid, aerated: Mask) -> Iterator[tuple[Box, Mask]]:
    """Yield each lung with its box, large enough to close it in.

    Where left and right touch, the bridge is worn away until two remain, and every block goes to the nearer of them.
    """
    box = _box_of(aerated, grid, max(_NECKS_MM))
    inner = aerated[box]
    depth = ndimage.distance_transform_edt(inner, grid.spacing_mm)
    for neck_mm in _NECKS_MM:
        seeds, number = ndimage.label(depth > neck_mm)
        sizes = np.bincount(seeds.ravel(), minlength=number + 1)[1:]
        if len(sizes) < 2:
            continue
        second, first = np.argsort(sizes)[-2:]
        if sizes[second] >= _BOTH_SHARE * sizes[first]:
            break
    else:
        yield _grown(aerated, grid)
        return
    distances = [
        ndimage.distance_transform_edt(seeds != seed + 1, grid.spacing_mm) for seed in (first, second)
    ]
    nearer = distances[0] <= distances[1]
    for side in (inner & nearer, inner & ~nearer):
        whole = np.zeros_like(aerated)
        whole[box] = side
        yield _grown(whole, grid)


def _middle(aerated: Mask) -> float:
    """Return where the middle between the lungs lies along the first axis: of the widest extent, whatever air each has left."""
    across = np.flatnonzero(aerated.any(axis=(1, 2)))
    return float(across[0] + across[-1]) / 2


def _towards_the_wall(side: Mask, middle: float) -> Mask:
    """Return what has no more of a lung's air between itself and the chest wall: outwards, or backwards in the outer half.

    What a large ball fills there was lung. On the other side, towards heart, great vessels and diaphragm, it fills what never was:
    beyond those, seen from the middle, there is air.
    """
    right = np.arange(side.shape[0])[:, None, None] > middle
    outwards = np.where(
        right,
        np.maximum.accumulate(side[::-1], axis=0)[::-1],
        np.maximum.accumulate(side, axis=0),
    )
    backwards = np.maximum.accumulate(side, axis=1)
    away = np.abs(np.arange(side.shape[0]) - middle)
    held = side.sum(axis=(1, 2))
    outer = (away >= np.average(away, weights=held))[:, None, None]
    return np.asarray(~outwards | (~backwards & outer))


def _grown(mask: Mask, grid: Grid) -> tuple[Box, Mask]:
    box = _box_of(mask, grid, _ROOM_MM)
    return box, mask[box]


def _closed(mask: Mask, spacing_mm: tuple[float, float, float], radius_mm: float) -> Mask:
    """Close a mask with a ball in millimetres, and fill what it encloses.

    Distances stand for the ball: what lies further than its radius from the mask is where it rolls. Beyond the scan's ends the
    mask is taken to go on.
    """
    if radius_mm > 0:
        reached = ndimage.distance_transform_edt(~mask, spacing_mm) <= radius_mm
        mask = mask | (ndimage.distance_transform_edt(reached, spacing_mm) > radius_mm)
    return np.asarray(ndimage.binary_fill_holes(mask))


def _box_of(mask: Mask, grid: Grid, margin_mm: float) -> Box:
    """Return the slices that hold a mask and a margin around it."""
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    room = [int(np.ceil(margin_mm / step)) + 1 for step in grid.spacing_mm]
    return tuple(
        slice(max(0, each.start - more), min(side, each.stop + more))
        for each, more, side in zip(found, room, mask.shape, strict=True)
    )
