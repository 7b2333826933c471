"""What share of the lungs is ground glass or consolidation, overall and by thirds, counted on the scanner's own voxels."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from algorithms.ct_lung_involvement.grid import Grid, blocks_of, slices_with
from algorithms.ct_lung_involvement.lungs import NoLungsError, find_lungs
from algorithms.one_patient import Volume, upright

DARK_BELOW_HU: Final = -950
"""Darker is emphysema or gas, not aerated lung (Gevenois et al., Am J Respir Crit Care Med 154:187, 1996)."""

_LOWEST_HU: Final = -1024
_HIGHEST_HU: Final = 1023
_BINS: Final = _HIGHEST_HU - _LOWEST_HU + 1
_BASAL, _MIDDLE, _APICAL = 1, 2, 3
_CUT_SHARE: Final = 0.05
"""A lung that fills this share of its largest layer on the scan's last one goes on beyond it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure.

    Attributes:
        ground_glass_from_hu, consolidation_from_hu: where the two bands begin; well-aerated lung lies below the first.
        closing_mm: radius of the ball that closes a lung towards the chest wall.
        rim_mm: how thick the rim is that is not counted.
    """

    ground_glass_from_hu: int = -700
    consolidation_from_hu: int = -250
    closing_mm: float = 30.0
    rim_mm: float = 2.5


@dataclass(frozen=True, slots=True)
class Bands:
    """Shares of the lung counted, or of a third of it, between 0 and 1.

    Attributes:
        dark: below -950 HU.
        aerated, ground_glass, consolidation: with `dark`, the whole.
    """

    dark: float
    aerated: float
    ground_glass: float
    consolidation: float

    @property
    def involved(self) -> float:
        """Ground glass and consolidation together."""
        return self.ground_glass + self.consolidation


@dataclass(frozen=True, slots=True)
class Involvement:
    """One scan's lungs.

    Attributes:
        volume_ml: of both lungs, with their vessels and rim.
        lungs: both together.
        apical, middle, basal: each third of the lungs' height; None of lungs that are cut off.
        cut_off: the scan does not show all of the lungs.
    """

    volume_ml: float
    lungs: Bands
    apical: Bands | None
    middle: Bands | None
    basal: Bands | None
    cut_off: bool


def measure(scan: Volume, settings: Settings) -> Involvement:
    """Measure one scan, whatever the order and direction of its axes.

    Raises:
        NoLungsError: it shows none, or nothing of them but rim.
    """
    volume = upright(scan)
    grid = blocks_of(volume)
    lungs = find_lungs(grid, closing_mm=settings.closing_mm, rim_mm=settings.rim_mm)
    counts = _histograms(volume, grid, _thirds(grid, lungs.whole) * lungs.inside)
    if not counts.any():
        raise NoLungsError
    edges = np.array([DARK_BELOW_HU, settings.ground_glass_from_hu, settings.consolidation_from_hu])
    counted = np.add.reduceat(counts, [0, *(edges - _LOWEST_HU)], axis=1)
    cut_off = _cut_off(lungs.whole)
    thirds = {
        third: None if cut_off or not counted[third].any() else _shares(counted[third])
        for third in (_BASAL, _MIDDLE, _APICAL)
    }
    return Involvement(
        volume_ml=float(np.count_nonzero(lungs.whole)) * grid.block_ml,
        lungs=_shares(counted.sum(axis=0)),
        apical=thirds[_APICAL],
        middle=thirds[_MIDDLE],
        basal=thirds[_BASAL],
        cut_off=cut_off,
    )


def _thirds(grid: Grid, whole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return which third of the lungs' height each block lies in, from the feet up, along the patient's own axis."""
    height = np.broadcast_to(grid.height_mm(), whole.shape)
    held = height[whole]
    low, high = float(held.min()), float(held.max())
    third = np.floor((height - low) / max(high - low, 1e-6) * 3)
    return np.asarray(np.clip(third, 0, 2) + 1, np.uint8)


def _histograms(volume: Volume, grid: Grid, regions: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the scan's voxels by region and Hounsfield unit."""
    counts = np.zeros((_APICAL + 1) * _BINS, np.int64)
    for values, chosen in slices_with(volume, grid, regions):
        unit = np.clip(values.astype(np.int32), _LOWEST_HU, _HIGHEST_HU) - _LOWEST_HU
        counts += np.bincount(chosen.astype(np.int32) * _BINS + unit, minlength=len(counts))
    return counts.reshape(_APICAL + 1, _BINS)


def _shares(counted: NDArray[np.int64]) -> Bands:
    """Return the shares of voxels that were counted by band, of which there are some."""
    return Bands(*(float(each) for each in counted / counted.sum()))


def _cut_off(whole: NDArray[np.bool_]) -> bool:
    """Whether a lung reaches an end of the scan."""
    for axis in range(whole.ndim):
        area = whole.sum(axis=tuple(other for other in range(whole.ndim) if other != axis))
        if max(area[0], area[-1]) >= _CUT_SHARE * area.max():
            return True
    return False
