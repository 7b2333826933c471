"""How well a segmentation agrees with the mark: Dice and the 95 % Hausdorff distance in millimetres, per structure.

By MONAI's metrics, on the image's own voxels. Only patients who have the structure marked count for these two (Dice of nothing with
nothing is no number); of the others it is told how often something was marked all the same. A structure that is missed altogether
has no distance; it counts with the diagonal of the volume, the largest that any could have. Cases of one patient are averaged first.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance
from numpy.typing import NDArray

from algorithms.volumes.grids import Grid

MINIMUM_PATIENTS: Final = 5
"""A mean over fewer is of persons rather than of a hospital, and is not told."""

_PERCENTILE: Final = 95.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one structure in one case.

    Attributes:
        dice: 0 to 1; None where the structure is not marked.
        hd95_mm: None likewise.
        false_alarm: whether something was found where nothing is marked; None where it is marked.
    """

    dice: float | None
    hd95_mm: float | None
    false_alarm: bool | None


def agreement(found: NDArray[Any], marked: NDArray[Any], grid: Grid) -> Agreement:
    """Compare one structure.

    Args:
        found: bool. Shape (x, y, z).
        marked: bool. Shape (x, y, z).
        grid: on which both lie, axes in the same order.
    """
    if not marked.any():
        return Agreement(None, None, bool(found.any()))
    box = _box(found | marked)
    # MONAI's metrics copy what they are given several times over: nothing but the structure's own box.
    ours, theirs = (torch.from_numpy(np.ascontiguousarray(each[box]))[None, None] for each in (found, marked))
    dice = float(compute_dice(ours, theirs, include_background=True))
    if not found.any():
        extent = np.asarray(grid.shape) * grid.spacing_mm
        return Agreement(dice, float(np.linalg.norm(extent)), None)
    distance = compute_hausdorff_distance(
        ours, theirs, include_background=True, percentile=_PERCENTILE, spacing=list(grid.spacing_mm)
    )
    return Agreement(dice, float(distance), None)


def summary(
    cases: Iterable[tuple[str, Mapping[str, Agreement]]],
    structures: Sequence[str],
    minimum: int = MINIMUM_PATIENTS,
) -> dict[str, float]:
    """Return means over patients: `dice_<structure>`, `hd95_mm_<structure>`, `false_alarms_<structure>`, each where enough have it.

    Args:
        cases: of which patient, and the agreement of each structure.
        structures: which ones.
        minimum: patients that a mean must be of.
    """
    of_patients: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for patient, agreements in cases:
        for structure in structures:
            one = agreements[structure]
            values = {"dice": one.dice, "hd95_mm": one.hd95_mm, "false_alarms": one.false_alarm}
            for name, value in values.items():
                if value is not None:
                    of_patients[f"{name}_{structure}"][patient].append(float(value))
    return {
        name: math.fsum(math.fsum(values) / len(values) for values in patients.values()) / len(patients)
        for name, patients in of_patients.items()
        if len(patients) >= minimum
    }


def _box(occupied: NDArray[Any]) -> tuple[slice, ...]:
    bounds = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        at = np.flatnonzero(occupied.any(axis=others))
        # A voxel around it: an edge that is cut through would be none.
        bounds.append(slice(max(0, int(at[0]) - 1), int(at[-1]) + 2))
    return tuple(bounds)
