"""Suppression against tables and numbers that the literature prints."""

import itertools
from typing import Any

import numpy as np
import pytest
from suppression_kit import RULES, of_counts, rules, sum_table

from station.egress.suppression import hide
from station.egress.suppression.audit import Attack, crosstab_is_safe
from station.egress.suppression.crosstabs import hide_crosstab
from station.egress.suppression.demands import outsider
from station.egress.suppression.flows import Slack, Work
from station.egress.suppression.sums import sums_are_safe

GEURTS = np.array([[4, 3], [2, 1], [3, 3]])
"""Margins of Geurts (1992), table 10, as in the Handbook (section 4.2, example 3): lines 7, 3, 6; columns 9, 7. The first two
lines are hidden; their numbers here are one possible table."""

FISCHETTI_SALAZAR = np.array([[20, 50, 10], [8, 19, 22], [17, 32, 12]])
"""Fischetti and Salazar (2001), figure 1: investment by activity and region, with margins 80, 49, 61 and 45, 101, 44."""

SDC_TABLE = np.array([[30, 47, 64, 89], [90, 124, 5, 31], [92, 100, 59, 85], [800, 991, 651, 685]])
"""R package sdcTable, `problemdata` (its tests of SIMPLEHEURISTIC): w, x, y, z by a, b, c, d."""
SDC_HIDDEN = ["wa", "wb", "wc", "xa", "xc", "yb", "yd", "zb", "zd"]

SINGLETONS = np.array([[52, 15, 62, 17], [24, 18, 31, 8]])
"""Tau-Argus manual 4.1 (section 2.10, the singleton problem): A and B by X1 .. X4, with 15 from one and the unsafe 17 of A."""


def lines_and_columns(shape: tuple[int, ...]) -> Any:
    rows = []
    for axis in (0, 1):
        for index in range(shape[axis]):
            mask = np.zeros(shape)
            mask[(index, slice(None)) if axis == 0 else (slice(None), index)] = 1
            rows.append(mask.ravel())
    return np.array(rows)


def interval(counts: Any, hidden: Any, place: tuple[int, int]) -> tuple[int, int]:
    """Return the feasibility interval by the linear programs of the audit, checked against the flows of the chooser."""
    from scipy.sparse import csr_array

    bounds = outsider(counts, hidden, 1)
    where = np.flatnonzero(hidden)
    sums = csr_array(lines_and_columns(counts.shape)[:, where].astype(np.int64))
    attack = Attack(
        sums, counts.ravel()[where], bounds.lower.ravel()[where], bounds.upper.ravel()[where], Work(10**9)
    )
    cell = int(np.flatnonzero(where == np.ravel_multi_index(place, counts.shape))[0])
    for sign in (1.0, -1.0):
        wanted = np.zeros(len(where))
        wanted[cell] = sign
        attack.push(wanted)
    found = int(attack.least[cell]), int(attack.most[cell])
    slack, here = Slack(counts, hidden, bounds, Work(10**9)), int(counts[place])
    assert found == (here - slack.shrinks(*place, 10**6), here + slack.grows(*place, 10**6))
    return found


def mask(shape: tuple[int, ...], places: list[tuple[int, int]]) -> Any:
    hidden = np.zeros(shape, dtype=bool)
    for place in places:
        hidden[place] = True
    return hidden


def test_the_feasibility_interval_of_geurts() -> None:
    """The Handbook works it out as 3 to 6."""
    hidden = mask((3, 2), [(0, 0), (0, 1), (1, 0), (1, 1)])
    assert interval(GEURTS, hidden, (0, 0)) == (3, 6)


def test_the_pattern_of_fischetti_and_salazar_protects_and_a_lone_cell_does_not() -> None:
    assert interval(FISCHETTI_SALAZAR, mask((3, 3), [(1, 2)]), (1, 2)) == (22, 22)
    pattern = mask((3, 3), [(1, 0), (1, 2), (2, 0), (2, 2)])
    # By the margins 30, 29, 25 and 34 of the hidden rectangle.
    assert interval(FISCHETTI_SALAZAR, pattern, (1, 2)) == (5, 30)


def test_two_hidden_cells_in_every_sum_are_not_enough_in_the_table_of_sdctable() -> None:
    """Its comment reckons w-b: of two lines less two columns remain 236 - 189 = 47. Its test hides one more: 0 to 78."""
    places = ["wxyz".index(name[0]) * 4 + "abcd".index(name[1]) for name in SDC_HIDDEN]
    hidden = np.zeros(16, dtype=bool)
    hidden[places] = True
    hidden = hidden.reshape(4, 4)
    assert (hidden.sum(axis=0) >= 2).all()
    assert (hidden.sum(axis=1) >= 2).all()
    assert interval(SDC_TABLE, hidden, (0, 1)) == (47, 47)
    hidden[1, 3] = True
    assert interval(SDC_TABLE, hidden, (0, 1)) == (0, 78)


def test_two_unsafe_cells_of_one_line_do_not_protect_each_other() -> None:
    """The manual forces a third cell into such a line: who is alone in X2 would know what is left for X4."""
    line = [np.linspace(1, 3, 26), np.array([15.0]), np.linspace(1, 3, 31), np.array([16.0, 0.5, 0.5])]
    assert [round(float(values.sum())) for values in line] == SINGLETONS[0].tolist()
    alone = np.array([False, True, False, True])
    assert not sums_are_safe(line, alone, 1, (0.0, 20.0), rules(p_percent=2.0).dominance)
    table = sum_table(
        "sum", np.concatenate(line), np.repeat(range(4), [len(v) for v in line]), by="x", bins=4
    )
    told = hide([table], rules(1, p_percent=2.0))["sum"].told
    assert told is not None
    assert told.ravel().tolist() == [False, False, True, False]


def test_the_handbooks_subsectors() -> None:
    """Example 1a: of 56,600 with 47,600 and 8,002 told the third is 998; one more has to go."""
    found = hide([of_counts([998, 47_600, 8_002], "subsector")], rules(1000))["table"].told
    assert found is not None
    assert found.ravel().tolist() == [False, True, False]


def test_the_handbooks_marital_status_by_sex() -> None:
    """Section 5.2: 38, 17; 7, 4; 3, 1. The one single woman follows from no margin."""
    table = np.array([[38, 17], [7, 4], [3, 1]])
    hidden = hide([of_counts(table, "status", "sex")], rules(3))["table"]
    assert hidden.told is None or not hidden.told[2, 1]
    assert hide([of_counts(table, "status", "sex")], rules(1))["table"].code is None


def least_safe(counts: Any, minimum: int) -> int:
    """Return how many patients are hidden by the cheapest pattern of all that the gate passes."""
    first = counts < minimum
    free = np.flatnonzero(~first.ravel())
    none = np.zeros(counts.shape[0], dtype=bool), np.zeros(counts.shape[1], dtype=bool)
    patterns = []
    for chosen in itertools.product((False, True), repeat=len(free)):
        hidden = first.ravel().copy()
        hidden[free] |= np.array(chosen, dtype=bool)
        patterns.append((int(counts.ravel()[hidden].sum()), hidden.reshape(counts.shape)))
    for cost, hidden in sorted(patterns, key=lambda pattern: pattern[0]):
        if crosstab_is_safe(counts, hidden, minimum, *none, Work(10**9)):
            return cost
    raise AssertionError


@pytest.mark.parametrize(
    ("counts", "minimum", "factor"),
    [(FISCHETTI_SALAZAR, 11, 1.6), (SINGLETONS, 9, 1.6)],
)
def test_not_much_more_is_hidden_than_the_least_that_is_safe(
    counts: Any, minimum: int, factor: float
) -> None:
    """The least is found by going through every pattern; the chooser does not look at the numbers it may hide, and pays for it."""
    none = np.zeros(counts.shape[0], dtype=bool), np.zeros(counts.shape[1], dtype=bool)
    hidden = hide_crosstab(counts, minimum, *none, Work(10**9))
    assert hidden is not None
    assert crosstab_is_safe(counts, hidden, minimum, *none, Work(10**9))
    least = least_safe(counts, minimum)
    assert least <= int(counts[hidden].sum()) <= factor * least


def test_the_rules_of_one_column_stay_what_they_were() -> None:
    """Patterns of the rule before this one, which hid as these do."""
    for counts, minimum, told in [
        ([12, 3, 20, 0], 10, [False, False, True, False]),
        ([3, 8, 30, 0], 5, [False, False, True, False]),
        ([10, 30, 12, 0], 11, [False, True, False, False]),
        ([9, 9, 9, 40, 50], 10, [False, False, False, False, True]),
        ([0, 1, 1, 1, 1, 1, 0, 0, 30, 0], 5, [*[False] * 8, True, False]),
    ]:
        found = hide([of_counts(counts, "x")], rules(minimum))["table"].told
        assert found is not None
        assert found.ravel().tolist() == told
    assert hide([of_counts([56, 4, 0, 0], "x")], rules(5))["table"].told is None
    assert hide([of_counts([0, 20, 30], "x")], RULES)["table"].code is None
