"""How many bits an output can say: counted against the outputs there are, and against what noise lets through."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.outputs import MetricOutput
from policies.rules.channels import (
    clipped_bits,
    float_values,
    floats_bits,
    metric_bits,
    noisy_bits,
    noisy_metric_bits,
    table_bits,
    whole_bits,
)
from policies.splits import Split


def every_float16() -> np.ndarray:
    found = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return np.unique(found[np.isfinite(found)].astype(np.float64))


def every_bfloat16() -> np.ndarray:
    found = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
    return np.unique(found[np.isfinite(found)].astype(np.float64))


@pytest.mark.parametrize("largest", [1e39, 65504.0, 1e4, 1.0, 0.3, 2.0**-14, 1e-6, 1e-7, 1e-40])
@pytest.mark.parametrize(("dtype", "every"), [("float16", every_float16()), ("bfloat16", every_bfloat16())])
def test_numbers_of_a_type_are_counted(dtype: str, every: np.ndarray, largest: float) -> None:
    there = int((np.abs(every) <= largest).sum())
    # One more on each side, for what is rounded up to the next; where there is one.
    more = 2 if there < every.size else 0
    assert float_values(dtype, largest) == there + more


@pytest.mark.parametrize("numbers", [1, 2])
@pytest.mark.parametrize("norm", [1e-7, 3e-5, 0.7, 30.0])
def test_a_ball_holds_no_more_points_than_the_bound(numbers: int, norm: float) -> None:
    grid = every_float16()
    squares = np.sort(grid[np.abs(grid) <= norm] ** 2)
    if numbers == 1:
        points = squares.size
    else:
        points = int(np.searchsorted(squares, norm**2 - squares, side="right").sum())
    bits = clipped_bits({"float16": numbers}, norm, 1e9)
    assert math.log2(points) <= bits
    assert bits <= floats_bits({"float16": numbers}, norm)


def test_clipping_takes_little_of_numbers_whose_grid_is_dense_near_zero() -> None:
    wide, free = clipped_bits({"float32": 10**6}, 1.0, 1e6), floats_bits({"float32": 10**6}, 1e6)
    assert 0.95 < wide / free < 1.0
    narrow = clipped_bits({"float16": 10**6}, 1.0, 1e6) / floats_bits({"float16": 10**6}, 1e6)
    assert 0.8 < narrow < 0.9


@given(count=st.integers(1, 10**8), norm=st.floats(1e-30, 1e30))
def test_a_bound_on_clipped_numbers_is_finite_and_grows(count: int, norm: float) -> None:
    bits = clipped_bits({"bfloat16": count}, norm, 1e6)
    assert 0.0 <= bits <= count * 16
    assert bits <= clipped_bits({"bfloat16": count}, norm * 2, 1e6) + 1e-6


def test_whole_numbers_say_what_their_type_and_the_bound_let_through() -> None:
    assert whole_bits("bool", 7, 1e6) == 7
    assert whole_bits("uint8", 3, 1e6) == 24
    assert whole_bits("int64", 1, 1000.0) == pytest.approx(math.log2(2001))
    assert whole_bits("int64", 1, 1e300) < 64


@pytest.mark.parametrize(
    ("low", "high", "decimals", "values"),
    [(0.0, 1.0, 2, 101), (0.0, 0.29, 2, 30), (-0.07, 0.27, 1, 5), (0.001, 0.006, 2, 2), (-1.0, 1.0, 0, 3)],
)
def test_a_metric_says_its_rounded_values_and_its_ends(
    low: float, high: float, decimals: int, values: int
) -> None:
    metric = MetricOutput(
        key="m", stage="train", minimum=low, maximum=high, decimals=decimals, split=Split.TRAINING
    )
    seen = {min(max(round(x, decimals), low), high) for x in np.linspace(low, high, 50_001).tolist()}
    assert len(seen) == values, seen
    assert 2 ** metric_bits(metric) == pytest.approx(values)


WHOLE = {"key": "n", "stage": "train", "type": "int", "split": Split.TRAINING}


@pytest.mark.parametrize(
    ("low", "high"),
    [(-1e308, 1e308), (0.0, 2.0**53 + 2), (-(2.0**53) - 2, 0.0), (0.3, 0.7), (0.5, 4.0), (0.0, 3.5)],
)
def test_the_bounds_of_a_whole_number_are_whole_and_no_larger_than_a_float_can_say(
    low: float, high: float
) -> None:
    with pytest.raises(ValidationError, match="whole numbers"):
        MetricOutput(minimum=low, maximum=high, **WHOLE)  # type: ignore[arg-type]


@pytest.mark.parametrize(("low", "high"), [(-3.0, 3.0), (0.0, 1.0), (-(2.0**53), 2.0**53)])
@pytest.mark.parametrize("required", [True, False])
def test_a_whole_number_says_every_one_of_its_range(low: float, high: float, *, required: bool) -> None:
    metric = MetricOutput(minimum=low, maximum=high, required=required, **WHOLE)  # type: ignore[arg-type]
    assert 2 ** metric_bits(metric) == pytest.approx(int(high) - int(low) + 1 + (not required))


def test_no_width_of_a_type_hides_what_a_whole_number_says() -> None:
    """Were bounds ever wider, the count would say so."""
    unchecked = MetricOutput.model_construct(
        minimum=-1e308, maximum=1e308, required=True, decimals=4, **WHOLE
    )
    assert metric_bits(unchecked) > 1000


def test_a_float_of_any_range_says_no_more_than_a_float64() -> None:
    widest = MetricOutput(key="m", stage="train", minimum=-1e308, maximum=1e308, split=Split.TRAINING)
    assert metric_bits(widest) == 64 > math.log2(2 * (0x7FEF_FFFF_FFFF_FFFF + 1))


@pytest.mark.parametrize(("cells", "most", "rounding"), [(1, 9, 1), (3, 7, 1), (3, 7, 4), (4, 5, 2)])
def test_a_table_says_no_more_than_there_are_tables(cells: int, most: int, rounding: int) -> None:
    exact = [table for table in product(range(most + 1), repeat=cells) if sum(table) <= most]
    assert math.log2(len(exact)) == pytest.approx(table_bits(cells, most, None), rel=1e-6)
    told = {tuple(cell // rounding for cell in table) for table in exact}
    assert math.log2(len(told)) <= table_bits(cells, most, rounding)


@pytest.mark.parametrize("z", [0.3, 1.0, 3.0])
def test_noise_lets_no_more_through_than_the_bound(z: float) -> None:
    """The best input distribution over a grid, found by Blahut's and Arimoto's iteration (1972), says less than the bound."""
    steps = 8
    inputs = np.arange(-steps // 2, steps // 2 + 1)
    outputs = np.arange(-math.ceil(10 * z * steps) - steps, math.ceil(10 * z * steps) + steps + 1)
    noise = np.exp(-((outputs[None, :] - inputs[:, None]) ** 2) / (2 * (z * steps) ** 2))
    noise /= noise.sum(axis=1, keepdims=True)
    share = np.full(inputs.size, 1 / inputs.size)
    for _ in range(2000):
        each = (noise * np.log2(noise / (share @ noise))).sum(axis=1)
        share *= np.exp2(each)
        share /= share.sum()
    each = (noise * np.log2(noise / (share @ noise))).sum(axis=1)
    bits = float(share @ each)
    assert bits <= noisy_bits(z)
    assert bits > noisy_bits(z) / (8 if z < 1 else 1.5), "and the bound says something"


def test_a_noisy_metric_never_says_more_than_a_plain_one() -> None:
    metric = MetricOutput(key="m", stage="train", minimum=0.0, maximum=1.0, decimals=3, split=Split.TRAINING)
    assert noisy_metric_bits(metric, 0.01) == metric_bits(metric)
    assert noisy_metric_bits(metric, 1.0) == pytest.approx(0.18, abs=0.01)
    yes_or_no = MetricOutput(key="b", stage="train", type="int", minimum=0, maximum=1, split=Split.TRAINING)
    # No whole number lies in its middle: the bound is that of the whole range.
    assert noisy_metric_bits(yes_or_no, 1.0) == pytest.approx(4 * noisy_bits(1.0))
