"""Noise on metrics and tables: sensitivities are what one patient can change, and what leaves is what people can read.

Statistical tests fail by chance with a probability below 1e-9.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.aggregates import AggregateOutput
from policies.errors import StateError
from policies.outputs import MetricOutput
from policies.policy import DifferentialPrivacy
from policies.privacy import Query, QueryKind
from policies.privacy.costs import queries_of_aggregate
from policies.rows import MAX_PATIENTS
from policies.splits import Split
from station.egress.analyses.exact import NOWHERE, Dimension, ExactTable
from station.egress.privacy.drawing import ChargedNoise, charged_noise
from station.egress.privacy.mechanisms import (
    COUNTS_SENSITIVITY_SQUARED,
    FINEST_STEPS,
    SummedGrid,
    metric_steps,
    noisy_metric,
    noisy_table,
)

ALMOST_NONE = 0.01
"""The least noise that a policy can ask for: a hundredth of a sensitivity."""


def paid(*queries: Query, multiplier: float = 1.0) -> ChargedNoise:
    privacy = DifferentialPrivacy(noise_multiplier=multiplier, epsilon=1.0, delta=1e-6)
    charged = charged_noise(privacy, queries, lambda _: None)
    assert isinstance(charged, ChargedNoise)
    return charged


def metric(**changes: Any) -> MetricOutput:
    fields = {
        "key": "auc", "stage": "evaluate", "minimum": 0.0, "maximum": 1.0, "decimals": 4, "split": Split.VALIDATION
    }  # fmt: skip
    return MetricOutput(**{**fields, **changes})


def told(item: MetricOutput, stated: float | None, multiplier: float = 1.0) -> float:
    return noisy_metric(paid(Query(QueryKind.METRIC, item.key), multiplier=multiplier), item, stated)


def aggregate(measure: str = "count", **changes: Any) -> AggregateOutput:
    fields: dict[str, Any] = {"key": "t", "column": "age", "measure": measure, "split": Split.TRAINING}
    fields |= {
        "count": {"edges": (50.0,)},
        "quantiles": {"edges": (20.0, 40.0, 60.0, 80.0), "probabilities": (0.25, 0.5)},
        "sum": {"decimals": 2},
    }[measure]
    return AggregateOutput(**{**fields, **changes})


def exact(
    cells: list[int],
    lines: int = 2,
    columns: int = 1,
    values: list[float] | None = None,
    bounds: tuple[float, float] | None = None,
) -> ExactTable:
    dimensions = (Dimension("age", (), lines), *([Dimension("sex", (), columns)] if columns > 1 else []))
    return ExactTable(
        key="t",
        measure="count",
        split=Split.TRAINING,
        dimensions=dimensions,
        patients=tuple(str(number) for number in range(len(cells))),
        cells=np.array(cells, np.int32),
        values=None if values is None else np.array(values, np.float64),
        value_column=None,
        minimum=10,
        bounds=bounds,
    )


def table(item: AggregateOutput, counted: ExactTable, multiplier: float = 1.0, ends: Any = ()) -> Any:
    return noisy_table(paid(*queries_of_aggregate(item), multiplier=multiplier), item, counted, ends)


def test_a_metric_keeps_its_range_and_decimals() -> None:
    seen = {told(metric(decimals=1), 0.5) for _ in range(200)}
    assert seen <= {number / 10 for number in range(11)}
    assert {0.0, 1.0} < seen


def test_a_metrics_noise_is_as_wide_as_its_range() -> None:
    """Few decimals, a wide range around the middle of which little is cut off: the standard deviation can be seen."""
    item = metric(minimum=-1000.0, maximum=1000.0, decimals=0)
    draws = np.array([told(item, 0.0, 0.1) for _ in range(1500)])
    # 6.5 standard deviations of the estimate, below 1e-9: sigma is a tenth of 2000.
    assert draws.std() == pytest.approx(200, rel=6.5 / math.sqrt(2 * 1500))
    assert abs(draws.mean()) < 6.5 * 200 / math.sqrt(1500)


def test_a_whole_metric_stays_whole() -> None:
    item = metric(type="int", minimum=0.0, maximum=100.0)
    assert all(type(told(item, 50)) is int for _ in range(20))


def test_a_metric_that_is_absent_is_told_as_its_minimum_would_be() -> None:
    item = metric(required=False, minimum=2.0, maximum=3.0)
    assert abs(told(item, None, ALMOST_NONE) - 2.0) < 0.2
    # Over half the draws of an absent one are cut off at the minimum, as of one that is the minimum.
    absent = sum(told(item, None) == 2.0 for _ in range(1000))
    assert 500 - 6.5 * 16 < absent < 500 + 6.5 * 16


@pytest.mark.parametrize("stated", [-5.0, 7.0])
def test_a_metric_beyond_its_range_moves_no_further_than_the_range(stated: float) -> None:
    item = metric()
    assert abs(told(item, stated, ALMOST_NONE) - min(max(stated, 0.0), 1.0)) < 0.2


@given(st.floats(-1e9, 1e9), st.floats(1e-3, 1e9), st.integers(0, 9), st.sampled_from(["int", "float"]))
@settings(max_examples=60, deadline=None)
def test_any_metric_can_be_told(minimum: float, span: float, decimals: int, kind: str) -> None:
    if kind == "int":
        minimum, span = float(math.floor(minimum)), float(math.ceil(span))
    item = metric(type=kind, minimum=minimum, maximum=minimum + span, decimals=decimals)
    assert 1 <= metric_steps(item) <= FINEST_STEPS
    for stated in (None, minimum, minimum + span, minimum + span / 3):
        assert item.minimum - 1 <= told(item, stated) <= item.maximum + 1


@pytest.mark.parametrize(
    ("minimum", "maximum", "kind"),
    [
        (-1e308, 1e308, "float"),
        (0.0, 5e-324, "float"),
        (1e308, 1.7e308, "float"),
        (-(2.0**53), 2.0**53, "int"),
        (2.0**53 - 1, 2.0**53, "int"),
    ],
)
@pytest.mark.parametrize("multiplier", [0.01, 1000.0])
def test_a_metric_of_any_range_that_can_be_declared_can_be_told(
    minimum: float, maximum: float, kind: str, multiplier: float
) -> None:
    item = metric(minimum=minimum, maximum=maximum, type=kind, decimals=9)
    for stated in (None, minimum, maximum):
        assert minimum <= told(item, stated, multiplier) <= maximum


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=60), st.data())
def test_replacing_one_patient_moves_counts_by_no_more_than_their_sensitivity(
    cells: list[int], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(cells) - 1))
    other = [*cells]
    other[place] = data.draw(st.integers(-1, 5))
    one, two = exact(cells, 3, 2).counts, exact(other, 3, 2).counts
    assert int(((one - two) ** 2).sum()) <= COUNTS_SENSITIVITY_SQUARED


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-1e9, 1e9),
    st.floats(1e-6, 1e9),
    st.integers(0, 6),
    st.lists(st.tuples(st.integers(-1, 2), st.floats(0, 1)), min_size=1, max_size=30),
    st.data(),
)
def test_replacing_one_patient_moves_sums_by_no_more_than_their_sensitivity(
    low: float, span: float, decimals: int, patients: list[tuple[int, float]], data: st.DataObject
) -> None:
    """As the mechanism sums: each patient's part as whole steps."""
    high = low + span
    if not low < high:
        return
    grid = SummedGrid.of(low, high, decimals)
    place = data.draw(st.integers(0, len(patients) - 1))
    other = [*patients]
    other[place] = data.draw(st.tuples(st.integers(-1, 2), st.floats(0, 1)))
    sums = [_steps(grid, each, low, high) for each in (patients, other)]
    moved = sum((a - b) ** 2 for a, b in zip(*sums, strict=True))
    assert moved <= grid.sensitivity_squared
    assert Fraction(grid.step) >= Fraction(1, 10**decimals)


def _steps(grid: SummedGrid, patients: list[tuple[int, float]], low: float, high: float) -> list[int]:
    values = np.array([low + share * (high - low) for _, share in patients])
    cells = np.array([line for line, _ in patients])
    whole = grid.whole(values)
    return [int(whole[cells == line].sum()) for line in range(3)]


def test_counts_have_noise_of_their_sensitivity_and_none_is_negative() -> None:
    counted = exact([0] * 500 + [1] * 3 + [NOWHERE] * 7, 2)
    draws = np.array([table(aggregate(), counted, 2.0) for _ in range(2000)])[:, :, 0]
    sigma = 2.0 * math.sqrt(2)
    assert draws[:, 0].std() == pytest.approx(sigma, rel=6.5 / math.sqrt(2 * 2000))
    assert abs(draws[:, 0].mean() - 500) < 6.5 * sigma / math.sqrt(2000)
    assert draws.min() == 0
    assert draws.dtype == np.int64


def test_a_crosstab_keeps_its_shape() -> None:
    counted = exact([0, 1, 2, 3, 4, 5] * 100, 3, 2)
    cells = np.array(table(aggregate(by="sex", edges=(30.0, 60.0)), counted, ALMOST_NONE))
    assert np.array_equal(cells, np.full((3, 2), 100))


def test_sums_are_those_that_so_many_patients_can_have() -> None:
    counted = exact([0] * 300 + [1] * 200, 2, 1, [40.0] * 300 + [80.5] * 200, (18.0, 100.0))
    lines = table(aggregate("sum"), counted, ALMOST_NONE)
    for (patients, total, squares), (due, value) in zip(lines, ((300, 40.0), (200, 80.5)), strict=True):
        assert abs(patients - due) <= 1
        assert abs(total - due * value) < 0.01 * 141.5 * 8
        assert abs(squares - due * value**2) < 0.01 * 14143 * 8
    noisy = [table(aggregate("sum"), exact([0], 2, 1, [30.0], (18.0, 100.0)), 5.0) for _ in range(50)]
    for patients, total, squares in (line for lines in noisy for line in lines):
        assert 18.0 * patients <= total <= 100.0 * patients
        assert 18.0**2 * patients <= squares <= 100.0**2 * patients


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(0.01, 1e3), st.integers(0, 6), st.integers(0, 40))
def test_what_a_sum_says_is_possible_where_it_arrives(
    low: float, span: float, decimals: int, patients: int
) -> None:
    """Of its decimals, and within what so many patients can have but for the rounding."""
    high = low + span
    squares = (0.0 if low <= 0.0 <= high else min(low * low, high * high), max(low * low, high * high))
    counted = exact([0] * patients + [NOWHERE], 1, 1, [low + span / 3] * (patients + 1), (low, high))
    ((count, total, of_squares),) = table(aggregate("sum", decimals=decimals), counted, 3.0)
    slack = 0.51 * 10.0**-decimals
    for value, (least, most) in ((total, (low, high)), (of_squares, squares)):
        assert round(value, decimals) == value
        assert count * least - slack <= value <= count * most + slack
        assert math.copysign(1.0, value) == 1.0 or value < 0.0


def test_a_count_is_no_larger_than_any_that_is_taken() -> None:
    counted = exact([0] * 5 + [1] * (MAX_PATIENTS - 5), 2)
    seen = [table(aggregate(), counted, 1000.0) for _ in range(40)]
    assert max(lines[1][0] for lines in seen) == MAX_PATIENTS  # half of them would be more


def test_a_sum_of_nobody_is_nothing() -> None:
    lines = table(aggregate("sum"), exact([NOWHERE], 1, 1, [0.0], (0.0, 1.0)), ALMOST_NONE)
    assert lines[0][0] == 0
    assert lines[0][1:] == (0.0, 0.0)


def test_quantiles_come_from_the_noisy_histogram() -> None:
    ends = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)
    counted = exact([0] * 100 + [1] * 300 + [2] * 400 + [3] * 100 + [4] * 100, 5)
    assert table(aggregate("quantiles"), counted, ALMOST_NONE, ends) == ((20.0, 40.0), (40.0, 60.0))
    # Of almost nobody: the whole range, not a missing table.
    nobody = table(aggregate("quantiles"), exact([NOWHERE], 5), ALMOST_NONE, ends)
    assert nobody == ((0.0, 100.0), (0.0, 100.0))


@pytest.mark.parametrize("measure", ["count", "sum", "quantiles"])
def test_every_query_of_a_table_is_charged(measure: str) -> None:
    item = aggregate(measure)
    counted = exact([0] * 30, 5, 1, [1.0] * 30, (0.0, 1.0))
    queries = queries_of_aggregate(item)
    assert len(queries) == (3 if measure == "sum" else 1)
    ends = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)
    for missing in range(len(queries)):
        noise = paid(*queries[:missing], *queries[missing + 1 :])
        with pytest.raises(StateError, match="not charged"):
            noisy_table(noise, item, counted, ends)
    noise = paid(*queries)
    noisy_table(noise, item, counted, ends)
    with pytest.raises(StateError, match="drawn before"):
        noisy_table(noise, item, counted, ends)
