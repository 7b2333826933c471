"""What makes slices a volume, judged from headers alone."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.cohorts.series import (
    MAX_SLICES,
    SeriesFinding,
    SliceHeader,
    arrange,
    examine_series,
)
from station.cohorts.unusable import Unusable

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def header(height: float = 0.0, **changes: Any) -> SliceHeader:
    values: dict[str, Any] = {
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "modality": "CT",
        "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"),
        "rows": 20,
        "columns": 30,
        "position": (-10.0, -20.0, height),
        "orientation": AXIAL,
        "pixel_spacing_mm": (0.8, 0.7),
        "slope": 1.0,
        "intercept": -1024.0,
        "rescale_type": "HU",
        "frame_of_reference": "2.25.1",
    }
    return SliceHeader(**(values | changes))


def stack(count: int = 20, step: float = 2.5) -> list[SliceHeader]:
    return [header(number * step) for number in range(count)]


def reasons(headers: list[SliceHeader]) -> dict[Unusable, int]:
    return {finding.reason: finding.slices for finding in examine_series(headers)}


def with_one(change: Callable[[list[SliceHeader]], object]) -> list[SliceHeader]:
    headers = stack()
    change(headers)
    return headers


def replaced(index: int, **changes: Any) -> list[SliceHeader]:
    headers = stack()
    headers[index] = header(index * 2.5, **changes)
    return headers


def test_a_whole_series_has_nothing_to_find_and_a_place_for_every_voxel() -> None:
    headers = stack()[::-1]
    assert examine_series(headers) == []
    grid, order = arrange(headers)
    assert grid.shape == (30, 20, 20)
    assert order == tuple(range(19, -1, -1))
    expected = np.array([[-0.7, 0, 0, 10.0], [0, -0.8, 0, 20.0], [0, 0, 2.5, 0.0], [0, 0, 0, 1]])
    assert np.allclose(grid.affine, expected)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], {Unusable.TOO_FEW_SLICES: 0}),
        (stack(4), {Unusable.TOO_FEW_SLICES: 4}),
        ([header()] * (MAX_SLICES + 1), {Unusable.TOO_LARGE: MAX_SLICES + 1}),
        (replaced(3, modality="MR"), {Unusable.NOT_CT: 1}),
        (replaced(3, sop_class_uid="1.2.840.10008.5.1.4.1.1.7"), {Unusable.NOT_CT: 1}),
        (replaced(3, sop_class_uid="1.2.840.10008.5.1.4.1.1.2.1"), {Unusable.MULTIFRAME: 1}),
        (replaced(3, frames=2), {Unusable.MULTIFRAME: 1}),
        (replaced(0, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")), {Unusable.LOCALIZER: 1}),
        (replaced(3, slope=None), {Unusable.MISSING_RESCALE: 1}),
        (replaced(3, intercept=None), {Unusable.MISSING_RESCALE: 1}),
        (replaced(3, slope=0.0), {Unusable.PIXEL_ATTRIBUTES: 1}),
        (replaced(3, rescale_type="US"), {Unusable.NOT_HOUNSFIELD: 1}),
        (replaced(3, rescale_type=""), {}),
        (replaced(3, rows=0), {Unusable.PIXEL_ATTRIBUTES: 1}),
        (replaced(3, rows=65_535, columns=65_535), {Unusable.TOO_LARGE: 21}),
        (replaced(3, position=None), {Unusable.GEOMETRY: 1}),
        (replaced(3, orientation=None), {Unusable.GEOMETRY: 1}),
        (replaced(3, pixel_spacing_mm=(0.0, 1.0)), {Unusable.GEOMETRY: 1}),
        (replaced(3, orientation=(1.0, 0, 0, 1.0, 0, 0)), {Unusable.GEOMETRY: 1}),
        (replaced(3, position=(0.0, 0.0, 1e300)), {Unusable.GEOMETRY: 1}),
        (replaced(3, rows=10), {Unusable.MIXED_SIZES: 1}),
        (replaced(3, pixel_spacing_mm=(0.8, 0.8)), {Unusable.MIXED_SIZES: 1}),
        (replaced(3, frame_of_reference="2.25.2"), {Unusable.MIXED_FRAME: 1}),
        (replaced(3, orientation=(0.0, 1.0, 0.0, 1.0, 0.0, 0.0)), {Unusable.MIXED_ORIENTATION: 1}),
        (replaced(3, position=(-10.0, -20.0, 5.0)), {Unusable.DUPLICATE_POSITION: 1, Unusable.GAP: 1}),
        (with_one(lambda headers: headers.pop(7)), {Unusable.GAP: 1}),
        (with_one(lambda headers: [headers.pop(7), headers.pop(7)]), {Unusable.GAP: 2}),
        (with_one(lambda headers: headers.append(header(5.0))), {Unusable.DUPLICATE_POSITION: 1}),
        (with_one(lambda headers: headers.pop(0)), {}),
        (replaced(3, position=(-10.0, -20.0, 8.5)), {Unusable.UNEVEN_SPACING: 1}),
        ([header(number * 100.0) for number in range(6)], {Unusable.GEOMETRY: 6}),
    ],
)
def test_each_fault_is_found_and_counted(headers: list[SliceHeader], expected: dict[Unusable, int]) -> None:
    assert reasons(headers) == expected


def leaning(degrees: float) -> list[SliceHeader]:
    lean = math.tan(math.radians(degrees))
    return [header(position=(-10.0, -20.0 + number * 2.5 * lean, number * 2.5)) for number in range(20)]


def test_positions_that_leave_the_normal_are_a_tilted_gantry() -> None:
    assert set(reasons(leaning(15.0))) == {Unusable.GANTRY_TILT}
    assert set(reasons(leaning(0.3))) == {Unusable.GANTRY_TILT}
    assert reasons(leaning(0.1)) == {}


def test_one_slice_beside_the_others_is_found() -> None:
    assert reasons(replaced(9, position=(-8.0, -20.0, 22.5))) == {Unusable.GANTRY_TILT: 1}


def test_what_rounding_does_to_positions_is_no_fault() -> None:
    rounded = [header(round(number * 0.6249, 1)) for number in range(60)]
    assert reasons(rounded) == {}
    coarse = [header(float(round(number * 0.7))) for number in range(60)]
    assert Unusable.DUPLICATE_POSITION in reasons(coarse)


def test_the_first_finding_is_the_one_to_name() -> None:
    headers = stack()
    headers[2] = header(5.0, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    headers[4] = header(10.0, slope=None)
    assert examine_series(headers)[0] == SeriesFinding(Unusable.LOCALIZER, 1)
    assert set(reasons(headers)) == {Unusable.LOCALIZER, Unusable.MISSING_RESCALE}


def test_slices_that_make_no_volume_have_no_places() -> None:
    with pytest.raises(ValueError, match="no volume"):
        arrange(stack(3))


def test_as_many_slices_as_may_be_are_judged_in_a_moment() -> None:
    headers = [header(number * 0.5, rows=8, columns=8) for number in range(MAX_SLICES)]
    started = time.process_time()
    assert examine_series(headers) == []
    assert time.process_time() - started < 5


@given(
    angles=st.tuples(*[st.floats(-math.pi, math.pi)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    spacing=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3), st.floats(0.4, 8)),
    seed=st.integers(0, 99),
)
def test_any_orientation_is_placed_as_the_standard_says(
    angles: tuple[float, ...], origin: tuple[float, ...], spacing: tuple[float, ...], seed: int
) -> None:
    """PS3.3 C.7.6.2.1.1: the place of pixel (row, column) from position, orientation and spacing."""
    row, column, normal = _turned(angles).T
    down_mm, across_mm, step_mm = spacing
    headers = [
        header(
            position=tuple(float(value) for value in np.array(origin) + number * step_mm * normal),
            orientation=tuple(float(value) for value in (*row, *column)),
            pixel_spacing_mm=(down_mm, across_mm),
        )
        for number in range(7)
    ]
    shuffled = [headers[index] for index in np.random.default_rng(seed).permutation(7)]
    grid, order = arrange(shuffled)
    assert [shuffled[index] for index in order] == headers
    for slice_, (i, j) in ((0, (0, 0)), (3, (29, 0)), (6, (11, 19))):
        expected = np.array(headers[slice_].position) + row * across_mm * i + column * down_mm * j
        placed = grid.affine @ np.array([i, j, slice_, 1.0])
        assert np.allclose(placed[:3], expected * [-1, -1, 1], atol=1e-3)


def _turned(angles: tuple[float, ...]) -> np.ndarray:
    turned = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = math.cos(angle), math.sin(angle)
        one, two = [index for index in range(3) if index != axis]
        turn = np.eye(3)
        turn[one, one], turn[two, two], turn[one, two], turn[two, one] = c, c, -s, s
        turned = turned @ turn
    return turned if np.linalg.det(turned) > 0 else -turned
