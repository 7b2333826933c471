"""Where the voxels of a handed-over series lie, from the headers of its pseudonymised files."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from station.intake.clinical.labels.faults import LabelError, LabelFault

MAX_SLICES = 20_000
_TAGS = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames",
)  # fmt: skip
_COSINE_TOLERANCE = 1e-3
_STEP_TOLERANCE = 0.02
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class SeriesGrid:
    """The voxels of a series: columns, rows and slices, slices from the lowest position along their normal up.

    Attributes:
        affine: from (column, row, slice) to RAS, in mm (NIfTI); None for a single image without a position, such as a
            radiograph.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class _Slice:
    rows: int
    columns: int
    position: NDArray[np.float64] | None
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    spacing: tuple[float, float]


def read_grid(files: Iterable[Path]) -> SeriesGrid:
    """Read where a series' voxels lie.

    Raises:
        LabelError: it is neither an even stack of parallel slices nor a single image.
    """
    paths = list(files)
    if not paths:
        raise LabelError(LabelFault.SERIES_UNKNOWN)
    if len(paths) > MAX_SLICES:
        raise LabelError(LabelFault.SERIES_NOT_A_VOLUME)
    slices = [_read(path) for path in paths]
    first = slices[0]
    if len(slices) == 1 and first.position is None:
        return SeriesGrid((first.columns, first.rows, 1), None)
    return _stack(slices)


def _read(path: Path) -> _Slice:
    try:
        found = dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        orientation = _numbers(found.get("ImageOrientationPatient"), 6)
        position = _numbers(found.get("ImagePositionPatient"), 3)
        spacing = _numbers(found.get("PixelSpacing"), 2)
        if int(found.get("NumberOfFrames") or 1) != 1:
            raise LabelError(LabelFault.SERIES_NOT_A_VOLUME)
        whole = orientation is not None and position is not None and spacing is not None
        axes = orientation if whole and orientation is not None else np.zeros(6)
        step = spacing if whole and spacing is not None else np.ones(2)
        return _Slice(
            rows=int(found.Rows),
            columns=int(found.Columns),
            position=position if whole else None,
            row=axes[:3],
            column=axes[3:],
            spacing=(float(step[0]), float(step[1])),
        )
    except (AttributeError, TypeError, ValueError, OSError, KeyError):
        # Our own pseudonymised file: what is odd in it was so in the original.
        pass
    raise LabelError(LabelFault.SERIES_NOT_A_VOLUME)


def _numbers(value: Any, count: int) -> NDArray[np.float64] | None:  # noqa: ANN401 - what pydicom holds
    if value is None or len(value) != count:
        return None
    found = np.array([float(part) for part in value])
    return found if np.isfinite(found).all() else None


def _stack(slices: list[_Slice]) -> SeriesGrid:
    first = slices[0]
    normal = np.cross(first.row, first.column)
    if (
        any(not _parallel(first, other) for other in slices)
        or abs(np.linalg.norm(normal) - 1) > _COSINE_TOLERANCE
    ):
        raise LabelError(LabelFault.SERIES_NOT_A_VOLUME)
    positions = np.array([found.position for found in slices])
    ordered = positions[np.argsort(positions @ normal)]
    steps = np.diff(ordered @ normal)
    step = normal
    if len(steps):
        mean = float(steps.mean())
        if mean <= 0 or np.abs(steps - mean).max() > _STEP_TOLERANCE * mean:
            raise LabelError(LabelFault.SERIES_NOT_A_VOLUME)
        step = (ordered[-1] - ordered[0]) / len(steps)
    lps = np.eye(4)
    lps[:3, 0] = first.row * first.spacing[1]
    lps[:3, 1] = first.column * first.spacing[0]
    lps[:3, 2] = step
    lps[:3, 3] = ordered[0]
    return SeriesGrid((first.columns, first.rows, len(slices)), _TO_RAS @ lps)


def _parallel(first: _Slice, other: _Slice) -> bool:
    return (
        other.position is not None
        and (other.rows, other.columns) == (first.rows, first.columns)
        and np.allclose(other.spacing, first.spacing, rtol=1e-4)
        and np.allclose(other.row, first.row, atol=_COSINE_TOLERANCE)
        and np.allclose(other.column, first.column, atol=_COSINE_TOLERANCE)
    )
