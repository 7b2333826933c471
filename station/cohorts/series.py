"""Whether the slices of a CT series make one volume, judged from their headers alone, and where its voxels lie.

Pure: headers in, findings out; it reads no file. The headers of untrusted files are read in a process apart
(`DecoderPool.headers`). Geometry follows PS3.3 C.7.6.2.1.1: positions and orientation decide; SliceThickness,
SpacingBetweenSlices and GantryDetectorTilt are nominal and not used.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from policies.documents import Sequence as Tuple
from policies.documents import StrictModel
from station.cohorts.unusable import Unusable

MINIMUM_SLICES: Final = 5
MAX_SLICES: Final = 4096
MAX_PLANE: Final = 4096 * 4096
MAX_SIDE: Final = 32_767
MAX_VOXELS: Final = 1 << 30

CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT: Final = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})

# Direction cosines written with six decimals differ by less; a tenth of a degree differs by more.
_COSINE_TOLERANCE: Final = 1e-3
_ALIKE_MM: Final = 0.01
_GAP_FACTOR: Final = 1.5
# From the evenly spaced positions that fit best: 5 % of the spacing, and what rounding to 0.1 mm does.
_UNEVEN_SHARE: Final = 0.05
_ROUNDING_MM: Final = 0.06
# Positions may drift off the normal by 0.2 degrees over the stack before it counts as sheared.
_TILT: Final = math.tan(math.radians(0.2))
_COORDINATE_LIMIT_MM: Final = 1e5
_SPACING_LIMITS_MM: Final = (0.01, 10.0)
_STEP_LIMITS_MM: Final = (0.05, 20.0)
RESCALE_LIMIT: Final = 1e6

Vector = NDArray[np.float64]
_Numbers = Tuple[float]
_Word = Annotated[str, Field(max_length=64)]


class SliceHeader(StrictModel):
    """What one slice's header says, where it can be read; None or empty where it cannot.

    Attributes:
        frames: 1 but for multi-frame objects.
        position: of the middle of the first pixel: x, y, z in millimetres, patient coordinates (LPS).
        orientation: cosines of the row's direction, then of the column's.
        pixel_spacing_mm: from row to row, then from column to column.
        slope, intercept: to the unit of `rescale_type`.
    """

    sop_class_uid: _Word = ""
    modality: _Word = ""
    image_type: Annotated[Tuple[_Word], Field(max_length=16)] = ()
    rows: Annotated[int, Field(ge=0, le=65_535)] = 0
    columns: Annotated[int, Field(ge=0, le=65_535)] = 0
    frames: Annotated[int, Field(ge=1, le=1 << 31)] = 1
    position: Annotated[_Numbers, Field(min_length=3, max_length=3)] | None = None
    orientation: Annotated[_Numbers, Field(min_length=6, max_length=6)] | None = None
    pixel_spacing_mm: Annotated[_Numbers, Field(min_length=2, max_length=2)] | None = None
    slope: float | None = None
    intercept: float | None = None
    rescale_type: _Word = ""
    frame_of_reference: _Word = ""


@dataclass(frozen=True, slots=True)
class SeriesFinding:
    """One thing that keeps a series from being a volume.

    Attributes:
        reason: what.
        slices: how many slices it concerns; of a gap, how many are missing.
    """

    reason: Unusable
    slices: int


class VolumeGrid(StrictModel):
    """Where the voxels of a whole series lie.

    Attributes:
        shape: (columns, rows, slices), as NIfTI counts them.
        origin: of the first voxel's middle, LPS, millimetres.
        axes: LPS steps from voxel to voxel along a row, down a column, and to the next slice; at right angles.
    """

    shape: Annotated[Tuple[Annotated[int, Field(ge=1, le=65_535)]], Field(min_length=3, max_length=3)]
    origin: Annotated[_Numbers, Field(min_length=3, max_length=3)]
    axes: Annotated[
        Tuple[Annotated[_Numbers, Field(min_length=3, max_length=3)]], Field(min_length=3, max_length=3)
    ]

    @property
    def affine(self) -> NDArray[np.float64]:
        """The 4x4 matrix from voxel indices to NIfTI's RAS millimetres."""
        lps = np.eye(4)
        lps[:3, :3] = np.transpose(np.array(self.axes))
        lps[:3, 3] = self.origin
        return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps)


def examine_series(headers: Sequence[SliceHeader]) -> list[SeriesFinding]:
    """Return everything that keeps these slices from being one CT volume; empty where they are one.

    What is found is ordered: the first finding is the one to name where only one can be. Geometry is looked at only
    where every slice has one of the same kind.

    1. As many slices as a volume has, each a CT image of one frame, and no localiser among them.
    2. Each maps to Hounsfield units.
    3. All of one size, spacing, orientation and frame of reference.
    4. Positions along the normal: no two alike, none missing, evenly spaced, and on the normal (no gantry tilt).

    Args:
        headers: of all the series' slices, in any order.
    """
    found: Counter[Unusable] = Counter()
    if len(headers) > MAX_SLICES:
        return [SeriesFinding(Unusable.TOO_LARGE, len(headers))]
    for header in headers:
        if reason := _judge_kind(header):
            found[reason] += 1
        else:
            found.update(_judge_values(header))
    if (0 < len(headers) < MINIMUM_SLICES and not found) or not headers:
        found[Unusable.TOO_FEW_SLICES] += len(headers)
    if sum(header.rows * header.columns for header in headers) > MAX_VOXELS:
        found[Unusable.TOO_LARGE] += len(headers)
    if not found:
        found.update(_differences(headers))
    if not found:
        found.update(_judge_positions(headers))
    return [SeriesFinding(reason, found[reason]) for reason in Unusable if reason in found]


def arrange(headers: Sequence[SliceHeader]) -> tuple[VolumeGrid, tuple[int, ...]]:
    """Return where the voxels lie, and the headers' indices in the order of the slices, along the normal.

    Raises:
        ValueError: `examine_series` finds something.
    """
    if examine_series(headers):
        raise ValueError("these slices make no volume")
    first = headers[0]
    row, column = _directions(first)
    normal = np.cross(row, column)
    heights, positions = _heights(headers, normal)
    order = np.argsort(heights, kind="stable")
    step_mm = float(heights[order[-1]] - heights[order[0]]) / (len(headers) - 1)
    down_mm, across_mm = first.pixel_spacing_mm or (1.0, 1.0)
    grid = VolumeGrid(
        shape=(first.columns, first.rows, len(headers)),
        origin=_values(positions[order[0]]),
        axes=(_values(row * across_mm), _values(column * down_mm), _values(normal * step_mm)),
    )
    return grid, tuple(int(index) for index in order)


def _judge_kind(header: SliceHeader) -> Unusable | None:
    if header.modality != "CT":
        return Unusable.NOT_CT
    if header.sop_class_uid in ENHANCED_CT or header.frames != 1:
        return Unusable.MULTIFRAME
    # Some exports lack the SOP class; the modality says enough then.
    if header.sop_class_uid not in {"", CT_IMAGE_STORAGE}:
        return Unusable.NOT_CT
    if "LOCALIZER" in header.image_type:
        return Unusable.LOCALIZER
    return None


def _judge_values(header: SliceHeader) -> set[Unusable]:
    found = set()
    if not header.rows * header.columns:
        found.add(Unusable.PIXEL_ATTRIBUTES)
    elif header.rows * header.columns > MAX_PLANE or max(header.rows, header.columns) > MAX_SIDE:
        found.add(Unusable.TOO_LARGE)
    if header.slope is None or header.intercept is None:
        found.add(Unusable.MISSING_RESCALE)
    elif (
        not (1 / RESCALE_LIMIT <= abs(header.slope) <= RESCALE_LIMIT) or abs(header.intercept) > RESCALE_LIMIT
    ):
        found.add(Unusable.PIXEL_ATTRIBUTES)
    # Absent means Hounsfield units in a CT image (PS3.3 C.8.2.1.1.2); multi-energy images name others.
    elif header.rescale_type not in {"", "HU"}:
        found.add(Unusable.NOT_HOUNSFIELD)
    if not _has_geometry(header):
        found.add(Unusable.GEOMETRY)
    return found


def _has_geometry(header: SliceHeader) -> bool:
    if header.position is None or header.orientation is None or header.pixel_spacing_mm is None:
        return False
    least, most = _SPACING_LIMITS_MM
    # Bounded before squared; NaN fails every comparison.
    if not (
        all(abs(value) <= _COORDINATE_LIMIT_MM for value in header.position)
        and all(abs(value) <= 1 + _COSINE_TOLERANCE for value in header.orientation)
        and all(least <= value <= most for value in header.pixel_spacing_mm)
    ):
        return False
    row, column = np.reshape(header.orientation, (2, 3))
    lengths = abs(np.linalg.norm(row) - 1), abs(np.linalg.norm(column) - 1)
    return bool(max(*lengths, abs(np.dot(row, column))) <= _COSINE_TOLERANCE)


def _differences(headers: Sequence[SliceHeader]) -> Counter[Unusable]:
    """Count slices unlike the most common one."""
    found: Counter[Unusable] = Counter()
    for reason, kinds in (
        (Unusable.MIXED_SIZES, [(each.rows, each.columns, each.pixel_spacing_mm) for each in headers]),
        (Unusable.MIXED_FRAME, [each.frame_of_reference for each in headers]),
    ):
        if others := len(headers) - Counter(kinds).most_common(1)[0][1]:
            found[reason] = others
    orientations = np.array([header.orientation for header in headers])
    usual = np.median(orientations, axis=0)
    if others := int(np.sum(np.abs(orientations - usual).max(axis=1) > _COSINE_TOLERANCE)):
        found[Unusable.MIXED_ORIENTATION] = others
    return found


def _judge_positions(headers: Sequence[SliceHeader]) -> Counter[Unusable]:
    found: Counter[Unusable] = Counter()
    row, column = _directions(headers[0])
    normal = np.cross(row, column)
    heights, positions = _heights(headers, normal)
    order = np.argsort(heights)
    sorted_heights, sorted_positions = heights[order], positions[order]
    if alike := int(np.sum(np.diff(sorted_heights) < _ALIKE_MM)):
        found[Unusable.DUPLICATE_POSITION] = alike
    kept = np.concatenate(([True], np.diff(sorted_heights) >= _ALIKE_MM))
    places = sorted_heights[kept]
    if len(places) < MINIMUM_SLICES:
        return found
    found.update(_judge_steps(places))
    drift = sorted_positions - sorted_positions[0]
    drift -= np.outer(drift @ normal, normal)
    sideways = np.linalg.norm(drift, axis=1)
    allowed = max(_ROUNDING_MM, _TILT * float(places[-1] - places[0]))
    if off := int(np.sum(sideways > allowed)):
        found[Unusable.GANTRY_TILT] = off
    return found


def _judge_steps(places: Vector) -> Counter[Unusable]:
    """Judge sorted, distinct positions along the normal."""
    steps = np.diff(places)
    usual = float(np.median(steps))
    least, most = _STEP_LIMITS_MM
    if not least <= usual <= most:
        return Counter({Unusable.GEOMETRY: len(places)})
    wide = steps[steps > _GAP_FACTOR * usual]
    if wide.size:
        return Counter({Unusable.GAP: int(np.sum(np.maximum(np.rint(wide / usual) - 1, 1)))})
    even = places[0] + np.arange(len(places)) * (places[-1] - places[0]) / (len(places) - 1)
    uneven = int(np.sum(np.abs(places - even) > _UNEVEN_SHARE * usual + _ROUNDING_MM))
    return Counter({Unusable.UNEVEN_SPACING: uneven}) if uneven else Counter()


def _directions(header: SliceHeader) -> tuple[Vector, Vector]:
    """Return unit vectors along a row and down a column, at right angles."""
    row, column = np.reshape(np.array(header.orientation, dtype=np.float64), (2, 3))
    row = row / np.linalg.norm(row)
    column = column - np.dot(column, row) * row
    return row, column / np.linalg.norm(column)


def _heights(headers: Sequence[SliceHeader], normal: Vector) -> tuple[Vector, Vector]:
    positions = np.array([header.position for header in headers], dtype=np.float64)
    return positions @ normal, positions


def _values(vector: Vector) -> tuple[float, ...]:
    return tuple(float(value) for value in vector)
