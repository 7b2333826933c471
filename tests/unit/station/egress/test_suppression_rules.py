"""Primary rules against the numbers that handbooks print."""

import numpy as np
import pytest
from suppression_kit import rules

from policies.policy import DominanceRules
from policies.refusals import RefusalCode
from station.egress.suppression.rules import (
    is_bounded_closely,
    is_concentrated,
    protection,
    sum_problem,
)

NEVER = {"share": 1.0, "p_percent": 1e-9}
DOMINATED, SMALL = RefusalCode.RELEASE_DOMINATED, RefusalCode.RELEASE_CELL_TOO_SMALL


def test_example_1_of_the_handbook_is_safe_by_dominance_alone_and_unsafe_by_p_percent() -> None:
    """Hundepool et al. (2012), section 4.2, example 1: 50,000 and 49,000 of 100,000 pass (1, 90); 51,000 comes within 2%."""
    values = np.array([50_000.0, 49_000.0, 1_000.0])
    assert not is_concentrated(values, DominanceRules(largest=1, share=0.9, p_percent=1e-9))
    assert is_concentrated(values, DominanceRules(largest=1, share=0.9, p_percent=2.5))
    assert not is_concentrated(values, DominanceRules(largest=1, share=0.9, p_percent=1.9))


def test_example_2_of_the_handbook_is_safe_by_p_percent_and_unsafe_by_dominance() -> None:
    """The same, example 2: 52,000 and 50,000 of 110,000: 15.4% for who is second, yet more than 90.9% of the sum."""
    values = np.array([52_000.0, 50_000.0, 8_000.0])
    assert not is_concentrated(values, DominanceRules(share=1.0, p_percent=10))
    assert is_concentrated(values, DominanceRules(share=1.0, p_percent=15.5))
    assert is_concentrated(values, DominanceRules(share=0.909, p_percent=1e-9))


def test_example_1d_of_the_handbook_one_of_fifty_one_has_99_percent() -> None:
    values = np.array([99.0, *[1 / 50] * 50])
    assert is_concentrated(values, DominanceRules(largest=1, share=0.98, p_percent=1e-9))
    assert is_concentrated(values, DominanceRules())


def test_example_4_of_the_handbook_gives_the_protection_level() -> None:
    """The same, example 4: 300, 20 and 10 under (1, 85): an upper bound below 352.94 would tell the largest too well."""
    level = protection(np.array([300.0, 20.0, 10.0]), DominanceRules(largest=1, share=0.85, p_percent=1e-9))
    assert 330 + level == pytest.approx(352.94, abs=0.01)


def test_one_dominant_value_among_seven_does_not_pass() -> None:
    """DataSHIELD, dsBase issue 250: the mean of these passed, and tells the one that dominates."""
    values = np.array([0.1, 0.2, 0.3, 0.5, 4e6, 0.6, 0.5])
    assert sum_problem(values, 3, None, DominanceRules()) is DOMINATED
    assert sum_problem(values[values < 1], 3, (0.0, 1.0), DominanceRules(p_percent=5)) is None


def test_a_column_of_zeros_but_for_one_does_not_pass_nor_do_copies_of_it_below_the_minimum() -> None:
    """The same issue: the column times a vector of zeros with a one; and the trick of five copies of the value."""
    for copies in (1, 5, 9):
        values = np.array([*[37.0] * copies, *[0.0] * (60 - copies)])
        assert sum_problem(values, 10, (0.0, 120.0), DominanceRules()) is DOMINATED


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5])
def test_a_sum_of_what_all_have_in_common_tells_it_of_each(value: float) -> None:
    assert sum_problem(np.full(40, value), 10, None, DominanceRules()) is DOMINATED


def test_a_sum_of_ones_is_a_count_of_them() -> None:
    for ones, told in ((3, False), (9, False), (10, True), (30, True), (50, True), (51, False), (57, False)):
        values = np.array([1.0] * ones + [0.0] * (60 - ones))
        assert (sum_problem(values, 10, (0.0, 1.0), DominanceRules(p_percent=5)) is None) is told, ones


def test_sum_and_squares_of_three_values_are_three_counts() -> None:
    def of(zero: int, one: int, two: int) -> RefusalCode | None:
        return sum_problem(
            np.repeat([0.0, 1.0, 2.0], [zero, one, two]), 10, (0.0, 2.0), DominanceRules(p_percent=5)
        )

    assert of(20, 20, 20) is None
    assert of(20, 20, 4) is DOMINATED
    assert of(20, 4, 20) is DOMINATED


def test_who_knows_the_public_bound_sees_the_one_below_it() -> None:
    """All but one share nearly the most that can be: the sum is far from dominated, and tells the one."""
    values = np.array([0.05, *np.linspace(0.995, 1.0, 59)])
    assert sum_problem(values, 10, None, DominanceRules()) is None
    assert sum_problem(values, 10, (0.0, 1.0), DominanceRules()) is DOMINATED


def test_mean_and_spread_bound_the_largest_closely_where_the_others_are_alike() -> None:
    others = np.full(40, 10.0) + np.linspace(0, 0.01, 40)
    assert is_bounded_closely(np.array([100.0, *others]), DominanceRules())
    assert not is_concentrated(np.array([100.0, *others]), DominanceRules())
    assert not is_bounded_closely(np.linspace(20, 90, 40), DominanceRules())


def test_an_ordinary_sum_is_told() -> None:
    ages = np.random.default_rng(3).normal(62, 11, 40).clip(18, 100)
    assert sum_problem(ages, 10, (18.0, 110.0), rules().dominance) is None
    assert sum_problem(ages[:9], 10, (18.0, 110.0), rules().dominance) is SMALL
    assert sum_problem(ages[:0], 10, (18.0, 110.0), rules().dominance) is None
