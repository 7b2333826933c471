"""Noise is distributed as it should be: against exact probabilities, and against the published sampler.

Each statistical test fails by chance with a probability below 1e-9 a run; what it must notice, it is shown to notice.
"""

import ast
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from station.egress.privacy import noise, randomness, reference
from station.egress.privacy.noise import DiscreteGaussian
from station.egress.privacy.randomness import RandomBits
from station.egress.privacy.reference import bernoulli_exp, discrete_gaussian

ALPHA = 1e-10
"""Chance that one of these tests fails though nothing is wrong."""


def probabilities(variance: Fraction, reach: int) -> NDArray[np.float64]:
    """The discrete Gaussian's probabilities from -reach to reach."""
    weights = [math.exp(-(x * x) / (2 * variance)) for x in range(-reach, reach + 1)]
    return np.array(weights) / math.fsum(weights)


def chi_square(draws: NDArray[np.int64], variance: Fraction) -> float:
    """The probability of so large a deviation by chance (Pearson 1900), over groups with 200 expected draws or more.

    With so many, the chance that Poisson numbers go beyond what chi-square says at 1e-10 is of that size too.
    """
    sigma = math.sqrt(variance)
    reach = math.ceil(12 * sigma) + 2
    # In some hundred groups of neighbours at most: for a large sigma single values are too rare.
    width = max(1, int(sigma / 16))
    groups = np.arange(-reach, reach + 1) // width
    groups -= groups[0]
    expected = np.bincount(groups, probabilities(variance, reach)) * len(draws)
    observed = np.bincount((draws // width) - (-reach // width), minlength=len(expected))
    common = expected >= 200
    seen, due = observed[common], expected[common]
    # What is rare goes together, and to the middle where even that is rare.
    middle = len(due) // 2
    seen[middle] += observed[~common].sum()
    due[middle] += expected[~common].sum()
    statistic = float(((seen - due) ** 2 / due).sum())
    return float(chi2.sf(statistic, len(due) - 1))


VARIANCES = [
    Fraction(1, 3),
    Fraction(1),
    Fraction(2),
    Fraction(49, 10),
    Fraction(1000),
    Fraction(12345678, 10),
]


@pytest.mark.parametrize("variance", VARIANCES, ids=str)
def test_draws_have_the_exact_probabilities(variance: Fraction) -> None:
    assert chi_square(DiscreteGaussian(variance, RandomBits()).draw(1_000_000), variance) > ALPHA


def test_a_very_small_sigma_is_zero_almost_always() -> None:
    # One is drawn with a probability of exp(-2500), two of a hundred at sigma squared 1/8.
    assert not DiscreteGaussian(Fraction(1, 5000), RandomBits()).draw(100_000).any()
    assert chi_square(DiscreteGaussian(Fraction(1, 8), RandomBits()).draw(100_000), Fraction(1, 8)) > ALPHA


@pytest.mark.parametrize("off", [Fraction(99, 100), Fraction(101, 100)], ids=["1% less", "1% more"])
@pytest.mark.parametrize("variance", [Fraction(2), Fraction(1000), Fraction(12345678, 10)], ids=str)
def test_a_sigma_that_is_one_percent_off_would_be_noticed(variance: Fraction, off: Fraction) -> None:
    # The statistic is 800 larger on average, more than ten of its standard deviations above what is let pass.
    draws = DiscreteGaussian(variance * off**2, RandomBits()).draw(4_000_000)
    assert chi_square(draws, variance) < ALPHA


def test_a_draw_that_is_one_off_would_be_noticed() -> None:
    draws = DiscreteGaussian(Fraction(1000), RandomBits()).draw(1_000_000) + 1
    assert chi_square(draws, Fraction(1000)) < ALPHA


@pytest.mark.parametrize("variance", [Fraction(1, 3), Fraction(2), Fraction(50)], ids=str)
def test_the_published_sampler_has_the_same_probabilities(variance: Fraction) -> None:
    bits = RandomBits()
    draws = np.array([discrete_gaussian(variance, bits) for _ in range(8_000)])
    assert chi_square(draws, variance) > ALPHA


def test_the_published_coin_has_its_probability() -> None:
    bits, tries = RandomBits(), 20_000
    for gamma in (Fraction(0), Fraction(1, 3), Fraction(5, 2)):
        yes = sum(bernoulli_exp(gamma, bits) for _ in range(tries))
        due = math.exp(-gamma)
        # Hoeffding (1963): further off than this with a probability below 1e-10.
        assert abs(yes / tries - due) <= math.sqrt(math.log(2 / ALPHA) / (2 * tries))
    assert all(bernoulli_exp(Fraction(0), bits) for _ in range(100))


def test_every_decision_made_to_the_last_digit_gives_the_same_distribution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where double precision does not decide, the exact comparison does; here it is made to decide all that is close."""
    monkeypatch.setattr(noise, "_DOUBT", 0.02)
    decided = 0
    exactly = DiscreteGaussian._decide

    def counted(self: DiscreteGaussian, value: int, which: int, uniform: int) -> bool:
        nonlocal decided
        decided += 1
        return exactly(self, value, which, uniform)

    monkeypatch.setattr(DiscreteGaussian, "_decide", counted)
    draws = DiscreteGaussian(Fraction(50), RandomBits()).draw(100_000)
    assert decided > 1000
    assert chi_square(draws, Fraction(50)) > ALPHA


@pytest.mark.parametrize(("value", "variance"), [(0, 1), (7, 50), (300, 9000)])
def test_the_exact_comparison_agrees_with_high_precision(value: int, variance: int) -> None:
    """Just below the probability it says yes, just above no."""
    sampler = DiscreteGaussian(Fraction(variance), RandomBits())
    which = int(np.searchsorted(sampler._table.starts, value, side="right")) - 1
    bits = sampler._decision_bits
    true = (
        sampler._table.constant
        / int(sampler._table.shares[which])
        * math.exp(-(value**2) / (2 * variance))
        * 2**bits
    )
    assert sampler._decide(value, which, int(true * (1 - 1e-12)))
    assert not sampler._decide(value, which, int(true * (1 + 1e-12)) + 1)


def test_the_tails_are_there() -> None:
    """Beyond four sigma: seen about as often as due (Chernoff bounds of a Poisson number, 1e-10 together)."""
    sigma, count = 1000, 4_000_000
    draws = DiscreteGaussian(Fraction(sigma**2), RandomBits()).draw(count)
    due = count * math.erfc(4 / math.sqrt(2))  # 253
    beyond = int((np.abs(draws) >= 4 * sigma).sum())
    assert due - 6.8 * math.sqrt(due) < beyond < due + 7.5 * math.sqrt(due)
    # Both sides alike.
    assert abs(int((draws > 0).sum()) - int((draws < 0).sum())) < 6.5 * math.sqrt(count)


def test_neighbouring_draws_are_unrelated() -> None:
    draws = DiscreteGaussian(Fraction(10**6), RandomBits()).draw(1_000_000).astype(np.float64)
    for lag in (1, 2, 7):
        correlation = float(np.einsum("i,i", draws[:-lag], draws[lag:])) / float(
            np.einsum("i,i", draws, draws)
        )
        assert abs(correlation) < 6.5 / math.sqrt(len(draws))


def test_no_probability_of_acceptance_is_above_one() -> None:
    """Rejection is exact only where no proposal would have to be accepted more than always."""
    for variance in (*VARIANCES, noise.SMALLEST_VARIANCE, Fraction(noise.LARGEST_VARIANCE)):
        sampler = DiscreteGaussian(variance, RandomBits())
        width = 1 << sampler._table.shift
        for start, share in zip(sampler._table.starts.tolist(), sampler._table.shares.tolist(), strict=True):
            nearest = max(start, 0) if start >= 0 else start + width - 1
            # In exact arithmetic: exp(-g) <= 1/(1 + g + g^2/2).
            gamma = Fraction(nearest**2) / (2 * variance)
            if gamma > 1:
                highest = Fraction(math.exp(-gamma)) * (1 + Fraction(1, 1 << 44))
            else:
                highest = Fraction(math.exp(-gamma)) + Fraction(1, 1 << 50)
            assert Fraction(sampler._table.constant) * highest <= share * (1 + Fraction(1, 1 << 42))
        assert int(sampler._table.shares.sum()) == 1 << 16
        reach = int(sampler._table.starts[-1]) + width
        assert reach >= 16 * math.sqrt(variance)


def test_keys_are_replaced_and_bits_stay_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomness, "_BYTES_PER_KEY", 1 << 16)
    bits = RandomBits()
    words = bits.words(1 << 20, np.uint8)
    counts = np.bincount(words, minlength=256)
    statistic = float(((counts - 4096) ** 2 / 4096).sum())
    assert chi2.sf(statistic, 255) > ALPHA
    assert not np.array_equal(words[: 1 << 16], words[1 << 16 : 1 << 17])
    assert not np.array_equal(RandomBits().words(8, np.uint64), RandomBits().words(8, np.uint64))


def test_a_number_below_a_bound_is_uniform() -> None:
    bits = RandomBits()
    counts = np.bincount([bits.below(5) for _ in range(20_000)], minlength=5)
    assert chi2.sf(float(((counts - 4000) ** 2 / 4000).sum()), 4) > ALPHA
    assert len(counts) == 5
    assert bits.below(1) == 0


@pytest.mark.parametrize("variance", [Fraction(0), Fraction(-1), Fraction(1, 1 << 21), Fraction(1 << 73)])
def test_a_variance_that_cannot_be_drawn_is_refused(variance: Fraction) -> None:
    with pytest.raises(ValueError, match="variance"):
        DiscreteGaussian(variance, RandomBits())


@pytest.mark.parametrize("count", [0, 1, 511, 512, 70_000])
def test_as_many_as_were_asked_for(count: int) -> None:
    assert DiscreteGaussian(Fraction(4), RandomBits()).draw(count).shape == (count,)


def generators(path: Path) -> list[str]:
    """Every use of a generator that is not ours, by name."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[Any] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
        found += [name for name in names if name in {"random", "default_rng", "numpy.random", "secrets"}]
    return found


def test_no_platform_generator_draws_noise() -> None:
    folder = Path(noise.__file__).parent
    paths = [*folder.glob("*.py"), folder.parent / "training" / "noising.py"]
    assert {Path(module.__file__ or "") for module in (noise, randomness, reference)} <= set(paths)
    assert {path.name: found for path in paths if (found := generators(path))} == {}
