"""The discrete Gaussian, sampled exactly and slowly, as it was published: what the fast sampler is held to.

Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy" (2020), algorithms 1 to 3. Only integers and
fractions: every probability is hit exactly. Used by tests; how long a draw takes depends on what is drawn (Jin, McMurtry,
Rubinstein and Ohrimenko 2022), so it does not stand in the way of a release.
"""

from fractions import Fraction
from math import isqrt

from station.egress.privacy.randomness import RandomBits


def discrete_gaussian(variance: Fraction, bits: RandomBits) -> int:
    """Draw an integer x with probability proportional to exp(-x^2 / (2 variance)) (algorithm 3).

    Args:
        variance: the parameter sigma squared, above 0.
        bits: where randomness comes from.
    """
    scale = isqrt(variance.numerator // variance.denominator) + 1
    while True:
        value = _discrete_laplace(scale, bits)
        gamma = (abs(value) - variance / scale) ** 2 / (2 * variance)
        if bernoulli_exp(gamma, bits):
            return value


def bernoulli_exp(gamma: Fraction, bits: RandomBits) -> bool:
    """Say yes with probability exp(-gamma), for gamma of 0 or more (algorithm 1)."""
    while gamma > 1:
        if not _bernoulli_exp_to_one(Fraction(1), bits):
            return False
        gamma -= 1
    return _bernoulli_exp_to_one(gamma, bits)


def _bernoulli_exp_to_one(gamma: Fraction, bits: RandomBits) -> bool:
    count = 1
    while _bernoulli(gamma / count, bits):
        count += 1
    return count % 2 == 1


def _bernoulli(probability: Fraction, bits: RandomBits) -> bool:
    return bits.below(probability.denominator) < probability.numerator


def _discrete_laplace(scale: int, bits: RandomBits) -> int:
    # Probability proportional to exp(-|x| / scale) (algorithm 2 with s = 1).
    while True:
        low = bits.below(scale)
        if not bernoulli_exp(Fraction(low, scale), bits):
            continue
        high = 0
        while _bernoulli_exp_to_one(Fraction(1), bits):
            high += 1
        value = low + scale * high
        negative = bits.integer(1) == 1
        if not (negative and value == 0):
            return -value if negative else value
