"""Confidence intervals of what was counted. Pure; all of them for 95 %, two-sided."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

Z: Final = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        value: None where hidden cells leave it open.
        low, high: its confidence interval; None where there is none to tell.
        least, most: between which it lies for sure, whatever hidden cells hold and wherever patients lie within their bin;
            None where nothing is open.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    least: float | None = None
    most: float | None = None


def wilson(successes: float, trials: float) -> tuple[float, float] | None:
    """Return the score interval of a share (Wilson 1927; recommended by Brown, Cai and DasGupta 2001); None of nobody.

    >>> [round(end, 4) for end in wilson(8, 10) or ()]
    [0.4902, 0.9433]
    """
    if trials <= 0:
        return None
    share = successes / trials
    weight = Z * Z / trials
    middle = (share + weight / 2) / (1 + weight)
    half = Z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    # At the ends the formula gives 0 and 1 but for rounding.
    return (0.0 if successes <= 0 else middle - half), (1.0 if successes >= trials else middle + half)


def share(successes: float, trials: float) -> Figure:
    """Return a share with its interval."""
    found = wilson(successes, trials)
    return Figure(None) if found is None else Figure(successes / trials, *found)


def on_logit_scale(value: float, variance: float) -> tuple[float, float] | None:
    """Return an interval that stays within 0 and 1, by the delta method on the logit scale.

    None at the ends, where it has none, and of a variance of 0: an estimate, which is no certainty.
    """
    if not 0 < value < 1 or variance <= 0:
        return None
    logit = math.log(value / (1 - value))
    half = Z * math.sqrt(variance) / (value * (1 - value))
    return 1 / (1 + math.exp(half - logit)), 1 / (1 + math.exp(-half - logit))
