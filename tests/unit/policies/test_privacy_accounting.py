"""What noise costs: held to closed forms, to another accountant and to published numbers."""

import math
import subprocess
import sys
from fractions import Fraction

import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.privacy import NOTHING, Spent, epsilon, releases_within, spendable
from policies.privacy.accounting import MOST_UNITS, UNITS_PER_ONE

MULTIPLIERS = st.floats(0.01, 1000)


def exact_delta(noise_multiplier: float, at: float) -> float:
    """The delta of the Gaussian mechanism at an epsilon (Balle and Wang 2018, theorem 8), which is exact."""

    def normal(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    half, shift = 1 / (2 * noise_multiplier), at * noise_multiplier
    return normal(half - shift) - math.exp(at) * normal(-half - shift)


def exact_epsilon(noise_multiplier: float, delta: float) -> float:
    low, high = 0.0, 500.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if exact_delta(noise_multiplier, middle) > delta else (low, middle)
    return high


@pytest.mark.parametrize("noise_multiplier", [0.5, 0.8, 1.0, 2.0, 4.0, 10.0])
@pytest.mark.parametrize("delta", [1e-4, 1e-6, 1e-9])
@pytest.mark.parametrize("queries", [1, 7, 100])
def test_epsilon_is_never_below_the_exact_one_and_not_far_above(
    noise_multiplier: float, delta: float, queries: int
) -> None:
    # Gaussians compose to a Gaussian: k queries of z are one of z over the root of k.
    exact = exact_epsilon(noise_multiplier / math.sqrt(queries), delta)
    ours = epsilon(Spent.of(noise_multiplier, queries), delta)
    assert exact <= ours <= 1.2 * exact + 0.02


def test_what_one_record_adds_is_doubled_once_and_not_twice() -> None:
    """Our multiplier is of the sensitivity under replace-one; the two accountants of the library read theirs differently."""
    ours = epsilon(Spent.of(1.5, 12), 1e-6)
    event = SelfComposedDpEvent(GaussianDpEvent(3.0), 12)  # twice: over what one record adds
    pld = PLDAccountant(NeighboringRelation.REPLACE_ONE)
    pld.compose(event)
    assert pld.get_epsilon(1e-6) <= ours <= 1.1 * pld.get_epsilon(1e-6)
    rdp = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_ONE)
    rdp.compose(SelfComposedDpEvent(GaussianDpEvent(1.5), 12))
    assert ours == pytest.approx(rdp.get_epsilon(1e-6), rel=2e-3)
    # The trap: the RDP accountant does not look at the relation, and half the noise would pass for all of it.
    wrong = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_ONE)
    wrong.compose(event)
    assert wrong.get_epsilon(1e-6) < 0.6 * ours


def test_a_published_budget() -> None:
    """The persons file of the 2020 US census: rho 2.56 is epsilon 17.14 at a delta of 1e-10 (Census Bureau, 9 June 2021)."""
    assert epsilon(Spent(round(2 * 2.56 * UNITS_PER_ONE)), 1e-10) == pytest.approx(17.14, abs=0.05)


@given(MULTIPLIERS, st.integers(1, 100))
def test_costs_add_up_exactly_and_round_up(noise_multiplier: float, queries: int) -> None:
    one = Spent.of(noise_multiplier)
    together = Spent.of(noise_multiplier, queries)
    assert together == one.times(queries)
    assert together + NOTHING == together
    true = queries / Fraction(noise_multiplier) ** 2
    assert 0 <= Fraction(together.units, UNITS_PER_ONE) - true < Fraction(queries, UNITS_PER_ONE)
    assert together.rho >= float(true) / 2


def test_a_full_sum_stays_full_and_stands_for_no_privacy() -> None:
    full = Spent.of(0.01, 10**9)
    assert full.units == MOST_UNITS
    assert full + full == full
    assert epsilon(full, 1e-6) == math.inf
    assert spendable(math.inf, 1e-6) < full


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 200), st.sampled_from([1e-4, 1e-7, 1e-10]))
def test_a_budget_as_a_number_of_units_is_the_most_within_it(limit: float, delta: float) -> None:
    most = spendable(limit, delta)
    assert epsilon(most, delta) <= limit
    assert epsilon(most + Spent(1 + most.units // 10**9), delta) > limit


@settings(max_examples=40, deadline=None)
@given(MULTIPLIERS, st.integers(1, 50), st.floats(0.1, 50))
def test_releases_within_a_budget_fit_and_one_more_does_not(
    noise_multiplier: float, queries: int, limit: float
) -> None:
    fit = releases_within(limit, 1e-6, noise_multiplier, queries)
    one = Spent.of(noise_multiplier, queries)
    assert one.times(fit) <= spendable(limit, 1e-6) < one.times(fit + 1)


def test_nothing_spent_is_epsilon_zero() -> None:
    assert epsilon(NOTHING, 1e-6) == 0.0
    # So little that delta alone covers it.
    assert spendable(0.0, 1e-6).rho < 1e-11


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
def test_what_is_no_multiplier_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="noise_multiplier"):
        Spent.of(wrong)


@pytest.mark.parametrize("wrong", [0.0, 1.0, math.nan])
def test_what_is_no_delta_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        epsilon(Spent.of(1.0), wrong)


def test_what_was_spent_does_not_come_back() -> None:
    with pytest.raises(ValueError, match="does not come back"):
        Spent(-1)
    with pytest.raises(ValueError, match="epsilon"):
        spendable(-1.0, 1e-6)
    with pytest.raises(ValueError, match="at least one query"):
        releases_within(1.0, 1e-6, 1.0, 0)


def test_programs_start_without_the_accountant() -> None:
    """It takes more than a second to import, which no command that does not ask for an epsilon should wait for."""
    program = "import sys, policies.privacy, policies.cli; print('dp_accounting' in sys.modules, 'scipy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert said.stdout.split() == ["False", "False"]
