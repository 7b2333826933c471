"""Attack: a sum is told of many, and yet it tells one patient's number: in its digits, beside another sum, or beside counts."""

from typing import Any

import numpy as np
import pytest
from suppression_kit import category, count_of, number, released, sum_of

from policies.refusals import RefusalCode
from station.egress.differencing.comparing import Told, problem_between

VICTIM = 17
V = number("v", 0.0, 10_000.0)
ALL = sum_of("v", decimals=6)


def left_out(columns: list[Any], aggregates: list[Any], rows: list[Any], *, told: set[str]) -> None:
    release = released(columns, aggregates, rows)
    assert set(release.tables) == told
    assert {item.code for item in release.suppressed} == {RefusalCode.RELEASE_DOMINATED}


# -- in the digits of one sum ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "start", "target"), [(1.0, 0.0, 61.123457), (0.5, 0.25, 61.123457), (100.0, 0.0, 4217.0), (7.0, 3.0, 12.0)]
)  # fmt: skip
def test_all_but_one_are_whole_numbers_of_a_step(step: float, start: float, target: float) -> None:
    values = [start + step * (20 + 7 * place % 61) for place in range(200)]
    values[VICTIM] = target
    # What all others add is their number times where the step starts, and whole steps.
    rest = (sum(values) - 199 * start) % step
    assert rest == pytest.approx(target % step, abs=1e-6)
    left_out([V], [ALL], [{"v": value} for value in values], told=set())


def test_squares_alone_are_whole_numbers() -> None:
    """The values are roots, so that nothing shows in them; the squares are whole, but for one."""
    values = [float(np.sqrt(100 + 17 * place)) for place in range(200)]
    values[VICTIM] = 7.654321
    assert sum(value * value for value in values) % 1 == pytest.approx(7.654321**2 % 1, abs=1e-6)
    left_out([V], [ALL], [{"v": value} for value in values], told=set())


def test_honest_sums_are_told() -> None:
    random = np.random.default_rng(4)
    ages = np.rint(random.normal(62, 11, 200))
    halves = ages + random.integers(0, 2, 200) / 2
    for values in (ages, halves, np.round(ages * 1.1, 1), random.normal(62, 11, 200).astype(np.float32)):
        assert released([V], [ALL], [{"v": float(value)} for value in values]).tables, values[:3]


# -- the same values, by other groups --------------------------------------------------------------------------


def groups(differ: int) -> tuple[list[str], list[str]]:
    """Return two ways to halve 200 patients, otherwise alike for all but the first few."""
    first = ["0" if place < 100 else "1" for place in range(200)]
    return first, ["1" if place < differ else group for place, group in enumerate(first)]


@pytest.mark.parametrize("common", [[1.0], [0.0], [1.0, 2.5]])
def test_what_two_groupings_differ_by_is_one_patients_value_beside_known_ones(common: list[float]) -> None:
    values = [round(float(value), 6) for value in np.random.default_rng(6).uniform(1.5, 10.5, 200)]
    for place in range(11):
        values[place] = common[place % len(common)]
    # So many more have them that they stand out in no group.
    for place in (*range(30, 50), *range(130, 150)):
        values[place] = common[place % len(common)]
    values[11] = 7.654321
    first, second = groups(12)
    by_first = sum(value for value, group in zip(values, first, strict=True) if group == "0")
    by_second = sum(value for value, group in zip(values, second, strict=True) if group == "0")
    assert by_first - by_second - sum(values[:11]) == pytest.approx(7.654321)

    rows = [{"v": v, "a": a, "b": b} for v, a, b in zip(values, first, second, strict=True)]
    columns = [V, category("a", 2), category("b", 2)]
    by_a, by_b = sum_of("v", "a", decimals=6), sum_of("v", "b", decimals=6)
    assert set(released(columns, [by_b], rows).tables) == {"sum_v_b"}
    left_out(columns, [by_a, by_b], rows, told={"sum_v_a"})

    # In two releases too, and where the second column is the first one in other units.
    scaled = [3 + 2 * value for value in values]
    for others in (values, scaled):
        assert problem_between(told_sum(others, second), told_sum(values, first)) is not None
    assert problem_between(told_sum(values, first), told_sum(values, first)) is None


def test_what_two_groupings_differ_by_is_dominated() -> None:
    """Eleven of the twelve have next to nothing, each something else: no value is frequent, and one makes up the difference."""
    values = [50.0 + 7.3131 * place % 41 for place in range(200)]
    for place in range(11):
        values[place] = 0.01 + place * 0.0031
    first, second = groups(12)
    columns = [V, category("a", 2), category("b", 2)]
    rows = [{"v": v, "a": a, "b": b} for v, a, b in zip(values, first, second, strict=True)]
    wanted = [sum_of("v", "a", decimals=6), sum_of("v", "b", decimals=6)]
    left_out(columns, wanted, rows, told={"sum_v_a"})
    assert problem_between(told_sum(values, second), told_sum(values, first)) is not None


def test_honest_values_by_other_groups_are_told() -> None:
    values = [float(40 + 7 * place % 41) for place in range(200)]
    first, second = groups(12)
    columns = [V, category("a", 2), category("b", 2)]
    rows = [{"v": v, "a": a, "b": b} for v, a, b in zip(values, first, second, strict=True)]
    assert len(released(columns, [sum_of("v", "a"), sum_of("v", "b")], rows).tables) == 2
    assert problem_between(told_sum(values, second), told_sum(values, first)) is None


def told_sum(values: list[float], cells: list[str]) -> Told:
    patients, parts = np.arange(len(values), dtype=np.int64), (np.array(cells, np.int32),)
    return Told("v", "sum", 10, patients, parts, np.array(values))


# -- values that follow from counts of another column ----------------------------------------------------------


OF_KIND = (10.137911, 101.779320, 207.331617)


def by_category(*, target: float, scatter: float = 0.0) -> tuple[list[float], list[str]]:
    kinds = [place % 3 for place in range(300)]
    values = [OF_KIND[kind] + scatter * (place % 29) for place, kind in enumerate(kinds)]
    values[VICTIM] = target
    return values, [str(kind) for kind in kinds]


@pytest.mark.parametrize("scatter", [0.0, 0.0001])
def test_counts_of_another_column_tell_what_all_but_one_add(scatter: float) -> None:
    values, kinds = by_category(target=157.3219, scatter=scatter)
    assert released([V], [ALL], [{"v": value} for value in values]).tables, "nothing of it shows in the sum"
    known = sum(OF_KIND[int(kind)] for kind in kinds)
    assert sum(values) - known + OF_KIND[int(kinds[VICTIM])] == pytest.approx(157.3219, rel=0.01)

    rows = [{"v": value, "kind": kind} for value, kind in zip(values, kinds, strict=True)]
    left_out([V, category("kind", 3)], [count_of("kind"), ALL], rows, told={"kind"})
    # The numbers of patients beside another sum are counts too.
    other = number("other", 0.0, 100.0)
    rows = [{**row, "other": 20.5 + 7 * place % 31 / 3} for place, row in enumerate(rows)]
    columns = [V, other, category("kind", 3)]
    left_out(columns, [sum_of("other", "kind"), ALL], rows, told={"sum_other_kind"})
    left_out(columns, [ALL, sum_of("other", "kind")], rows, told={ALL["key"]})


def test_counts_of_an_earlier_release_tell_what_all_but_one_add() -> None:
    values, kinds = by_category(target=157.3219)
    patients, cells = np.arange(300, dtype=np.int64), np.array(kinds, np.int32)
    counts = Told("kind", "count", 10, patients, (cells,))
    summed = Told("v", "sum", 10, patients, (np.zeros(300, np.int32),), np.array(values))
    assert problem_between(summed, counts) is not None
    assert problem_between(counts, summed) is not None
    values[VICTIM] = OF_KIND[int(kinds[VICTIM])]
    follows = Told("v", "sum", 10, patients, (np.zeros(300, np.int32),), np.array(values))
    assert problem_between(follows, counts) is None, "it tells what the counts do"


def test_honest_values_beside_counts_are_told() -> None:
    random = np.random.default_rng(9)
    rows = [
        {"v": float(np.round(random.normal(200 + 60 * (place % 3), 40), 1)), "kind": str(place % 3)}
        for place in range(300)
    ]
    columns = [V, category("kind", 3)]
    assert len(released(columns, [count_of("kind"), ALL, sum_of("v", "kind")], rows).tables) == 3
