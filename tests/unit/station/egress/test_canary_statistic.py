"""The canary's statistics against their definitions, counted out, and against values from the literature and by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.egress.canary.statistic import area_under_curve, standard_error, true_positive_rate

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=20)


def counted_out(members: list[float], held_back: list[float]) -> float:
    """Mann and Whitney's U, pair by pair, over the number of pairs."""
    wins = sum((m > h) + (m == h) / 2 for m in members for h in held_back)
    return wins / (len(members) * len(held_back))


@given(SCORES, SCORES)
def test_the_area_is_the_share_of_pairs_in_order_with_ties_halved(
    members: list[float], held_back: list[float]
) -> None:
    area = area_under_curve(members, held_back)
    assert math.isclose(area, counted_out(members, held_back), rel_tol=1e-12, abs_tol=1e-12)
    assert math.isclose(area + area_under_curve(held_back, members), 1.0, rel_tol=1e-12)


def test_the_area_of_hanley_and_mcneils_ct_readings() -> None:
    """Table I of Hanley and McNeil (Radiology 143:29, 1982): 109 CT images rated 1 to 5; the area there is 0.893."""
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)

    def ratings(counts: tuple[int, ...]) -> list[float]:
        return [float(rating) for rating, count in enumerate(counts, 1) for _ in range(count)]

    assert round(area_under_curve(ratings(abnormal), ratings(normal)), 3) == 0.893


@pytest.mark.parametrize(
    ("members", "held_back", "area"),
    [([1.0], [0.0], 1.0), ([0.0], [1.0], 0.0), ([1.0] * 7, [1.0] * 3, 0.5), ([2.0, 1.0], [1.5], 0.5)],
)
def test_small_areas(members: list[float], held_back: list[float], area: float) -> None:
    assert area_under_curve(members, held_back) == area


@given(SCORES, SCORES, st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_the_rate_is_the_best_threshold_by_trying_every_one(
    members: list[float], held_back: list[float], allowed: float
) -> None:
    best = 0.0
    for threshold in [*members, *held_back, 99.0]:
        false = sum(score >= threshold for score in held_back) / len(held_back)
        if false <= allowed:
            best = max(best, sum(score >= threshold for score in members) / len(members))
    assert math.isclose(true_positive_rate(members, held_back, allowed), best)


def test_with_few_held_back_a_low_rate_mistakes_nobody() -> None:
    assert true_positive_rate([3.0, 3.0, 1.0, 0.0], [2.0] + [0.0] * 18, 0.01) == 0.5


def test_the_error_is_mann_and_whitneys_variance() -> None:
    """Over all orders of a few scores the area strays by exactly this."""
    from itertools import combinations

    ranks = [float(rank) for rank in range(8)]
    areas = [
        area_under_curve(members, [rank for rank in ranks if rank not in members])
        for members in combinations(ranks, 3)
    ]
    mean = sum(areas) / len(areas)
    assert math.isclose(mean, 0.5)
    spread = math.sqrt(sum((area - mean) ** 2 for area in areas) / len(areas))
    assert math.isclose(spread, standard_error(3, 5))


@pytest.mark.parametrize("sides", [([], [1.0]), ([1.0], [])])
def test_a_side_without_patients_has_no_statistic(sides: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="both sides"):
        area_under_curve(*sides)
    with pytest.raises(ValueError, match="both sides"):
        true_positive_rate(*sides, 0.1)
