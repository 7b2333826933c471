"""The fewest patients that a combination of two tables' numbers isolates: against every combination, and by name."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from station.egress.differencing.comparing import Told, metric, off_the_line, problem_between
from station.egress.differencing.cuts import NOBODY, fewest_isolated

Cells = list[int]


def cut(one: Cells, other: Cells, minimum: int) -> int | None:
    return fewest_isolated(np.array(one, np.int32), np.array(other, np.int32), minimum)


def by_every_union(one: Cells, other: Cells) -> int | None:
    """The least that a difference of unions of cells depends on, by trying all."""
    nodes = sorted({(0, cell) for cell in one if cell >= 0} | {(1, cell) for cell in other if cell >= 0})
    found: list[int] = []
    for chosen in itertools.product((False, True), repeat=len(nodes)):
        taken = {node for node, yes in zip(nodes, chosen, strict=True) if yes}
        found.append(sum(((0, a) in taken) != ((1, b) in taken) for a, b in zip(one, other, strict=True)))
    return min((number for number in found if number), default=None)


cells = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3), st.booleans()), max_size=14)


@given(cells, st.integers(1, 9))
def test_it_finds_a_cut_just_where_some_combination_isolates_too_few(
    drawn: list[tuple[int, int, bool]], minimum: int
) -> None:
    one = [a for a, _, _ in drawn]
    other = [a if same else b for a, b, same in drawn]
    least, found = by_every_union(one, other), cut(one, other, minimum)
    assert (found is not None) == (least is not None and least < minimum)
    if found is not None:
        assert least is not None
        assert least <= found < minimum


@given(cells, st.integers(1, 9))
def test_neither_the_order_of_patients_nor_the_names_of_cells_matter(
    drawn: list[tuple[int, int, bool]], minimum: int
) -> None:
    one, other = [a for a, _, _ in drawn], [b for _, b, _ in drawn]
    renamed = [cell if cell == NOBODY else 7 - cell for cell in other]
    assert (cut(one, other, minimum) is None) == (cut(other[::-1], one[::-1], minimum) is None)
    assert (cut(one, other, minimum) is None) == (cut(one, renamed, minimum) is None)


def test_the_same_table_again_isolates_nobody() -> None:
    assert cut([0] * 5 + [1] * 3 + [NOBODY] * 2, [0] * 5 + [1] * 3 + [NOBODY] * 2, 3) is None


def test_one_patient_between_two_edges() -> None:
    # Below 0.5 are ten, below 0.51 eleven.
    assert cut([0] * 10 + [1] * 11, [0] * 11 + [1] * 10, 10) == 1


def test_merged_categories_less_one() -> None:
    # The first table has A and B apart, the second both together without one of them.
    assert cut([0] * 12 + [1] * 15 + [2] * 20, [0] * 26 + [1] * 21, 10) == 1
    assert cut([0] * 12 + [1] * 15 + [2] * 20, [0] * 27 + [1] * 20, 10) is None


def test_a_cell_that_was_hidden_and_follows_from_the_union() -> None:
    # Told are 20 and 30, hidden are 3 and 12; the second table tells 20 + 12 together with 30 and hides nothing but the 3.
    one = [0] * 20 + [1] * 30 + [NOBODY] * 15
    assert cut(one, [0] * 20 + [1] * 30 + [0] * 12 + [NOBODY] * 3, 10) is None, "12 are enough"
    assert cut(one, [0] * 20 + [1] * 30 + [0] * 3 + [NOBODY] * 12, 10) == 3


def test_two_unrelated_columns_of_the_same_patients() -> None:
    one = [i % 2 for i in range(200)]
    other = [i // 2 % 3 for i in range(200)]
    assert cut(one, other, 10) is None


def told(patients: range, parts: Cells, values: list[float] | None = None, measure: str = "count") -> Told:
    return Told(
        "t",
        "sum" if measure == "sum" else "count",
        10,
        np.array(patients, np.int64),
        (np.array(parts, np.int32),),
        None if values is None else np.array(values),
    )


def test_populations_that_differ_by_a_few() -> None:
    hundred = np.arange(100, dtype=np.int64)
    assert problem_between(metric("auc", hundred, 10), metric("auc", hundred, 10)) is None
    assert problem_between(metric("auc", hundred, 10), metric("f1", hundred[1:], 10)) is not None
    assert problem_between(metric("auc", hundred[:90], 10), metric("auc", hundred, 10)) is None
    assert problem_between(metric("auc", hundred[:90], 10), metric("auc", hundred[1:], 10)) is not None, (
        "many came, one went"
    )
    assert problem_between(metric("auc", hundred[:50], 10), metric("auc", hundred[50:], 10)) is None
    # The stricter of two minimums holds.
    assert problem_between(metric("auc", hundred[:90], 10), metric("auc", hundred, 11)) is not None


def test_populations_with_nobody_in_common() -> None:
    """A small test set's metric stands in nobody's way who counts the training patients."""
    hundred = np.arange(100, dtype=np.int64)
    assert problem_between(metric("auc", hundred[:6], 10), metric("f1", hundred[6:], 10)) is None
    assert problem_between(metric("auc", hundred[:7], 10), metric("f1", hundred[6:], 10)) is not None


def test_a_cell_that_was_told_under_a_laxer_policy_stands_in_nobodys_way() -> None:
    hundred = np.arange(100, dtype=np.int64)
    sex, smoker = np.repeat([0, 1], [6, 94]).astype(np.int32), np.tile([0, 1], 50).astype(np.int32)
    lax = Told("sex", "count", 5, hundred, (sex,))
    assert problem_between(Told("smoker", "count", 10, hundred, (smoker,)), lax) is None
    # The same cell but for two patients is theirs by subtraction.
    nearly = np.repeat([0, 1], [8, 92]).astype(np.int32)
    assert problem_between(Told("other", "count", 10, hundred, (nearly,)), lax) is not None


def test_a_sum_of_the_same_values_but_for_one_patient() -> None:
    ages = [float(20 + i % 60) for i in range(100)]
    sums = told(range(100), [0] * 100, ages, "sum")
    twice = told(range(100), [0] * 100, [2 * age + 5 for age in ages], "sum")
    assert problem_between(sums, twice) is None
    for place in (0, 37, 99):
        other = [2 * age + 5 for age in ages]
        other[place] += 3
        assert problem_between(told(range(100), [0] * 100, other, "sum"), sums) is not None, place


def test_a_sum_to_which_few_of_the_difference_add() -> None:
    # Twelve patients are in one and not in the other; only one of them adds anything.
    values = [5.0 + i % 7 for i in range(60)] + [0.0] * 11 + [7.0]
    every = told(range(72), [0] * 72, values, "sum")
    fewer = told(range(60), [0] * 60, values[:60], "sum")
    assert problem_between(every, fewer) is not None
    full = told(range(72), [0] * 72, [5.0 + i % 7 for i in range(72)], "sum")
    assert problem_between(full, fewer) is None


def test_unrelated_values_are_no_line() -> None:
    random = np.random.default_rng(7)
    assert off_the_line(random.normal(size=300), random.normal(size=300), 10) is None
    assert off_the_line(np.zeros(0), np.zeros(0), 10) is None
    assert off_the_line(np.ones(50), np.ones(50), 10) is None
