"""What an attacker who sees many releases can show about the noise: lower bounds on epsilon, with the confidence stated.

Two worlds differ in one patient. The attacker knows both, sees one number per release (the likelihood ratio is increasing in it), and says
"with" where it is above a threshold that was fixed beforehand. How often that is right and wrong bounds the privacy from below.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from dp_accounting import get_epsilon_gaussian
from numpy.typing import NDArray
from scipy.stats import beta, norm

MISTAKE = 1e-9
"""Probability that one of the bounds here does not hold."""


@dataclass(frozen=True)
class Audit:
    """Statistics of both worlds, and the bounds that follow.

    The bounds of Clopper and Pearson (1934) hold for any distribution; each fails with a probability of at most `MISTAKE`.
    """

    with_patient: NDArray[np.float64]
    without: NDArray[np.float64]

    def rates(self, threshold: float) -> tuple[float, float]:
        """At least so often "with" is said where it is so, at most so often where it is not."""
        return at_least(int((self.with_patient > threshold).sum()), len(self.with_patient)), at_most(
            int((self.without > threshold).sum()), len(self.without)
        )

    def epsilon(self, delta: float, thresholds: Sequence[float]) -> float:
        """The greatest epsilon that is ruled out at a delta, without any assumption (Jagielski et al. 2020)."""
        found = 0.0
        for threshold in thresholds:
            right, wrong = self.rates(threshold)
            if right > delta:
                found = max(found, math.log((right - delta) / wrong))
        return found

    def gaussian_epsilon(self, delta: float, threshold: float) -> float:
        """The epsilon of the best Gaussian mechanism that explains what was seen (Nasr et al. 2023).

        It assumes that the noise is Gaussian of whatever size, and sees far smaller probabilities for it.
        """
        right, wrong = self.rates(threshold)
        shift = float(norm.ppf(right) - norm.ppf(wrong))
        return float(get_epsilon_gaussian(1 / shift, delta)) if shift > 0 else 0.0


def at_least(seen: int, count: int) -> float:
    return float(beta.ppf(MISTAKE, seen, count - seen + 1)) if seen else 0.0


def at_most(seen: int, count: int) -> float:
    return float(beta.isf(MISTAKE, seen + 1, count - seen)) if seen < count else 1.0
