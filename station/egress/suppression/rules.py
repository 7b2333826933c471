"""When a single number tells too much: the primary rules of statistical disclosure control.

Pure. The names and formulas are those of Hundepool, Domingo-Ferrer, Franconi, Giessing, Schulte Nordholt, Spicer and de Wolf,
"Statistical Disclosure Control" (2012), and its online edition (ESSNet Handbook, section 4.2): contributions x1 >= x2 >= ...
of patients to a sum X.

- minimum frequency: fewer than the minimum contribute;
- (n, k): the n largest together are more than the share k of X;
- p%: who contributed x2 takes it from X and comes within p% of x1: X - x1 - x2 < p/100 * x1.

A sum here leaves with the number of patients and the sum of squares, and the column's bounds are public. So four more:

- a sum of what all have in common tells it of each, and one of which most is common tells what the few others have;
- of three different values or fewer, the three numbers tell how many patients have each: each is a count and held to the minimum;
- mean and spread bound the largest (Samuelson 1968: at most the spread times the root of the others away from the mean);
- of whole numbers of a step but for a few, the rest of the sum by that step is what the few add (`lattices`).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.policy import DominanceRules
from policies.refusals import RefusalCode
from station.egress.suppression.lattices import few_off_a_lattice

Values = NDArray[np.float64]

_TELLING: Final = 3
"""So many numbers of a sum leave: patients, sum and sum of squares. They tell as many unknown counts."""


@dataclass(frozen=True, slots=True)
class HidingRules:
    """What a policy asks of tables.

    Attributes:
        minimum: the least patients of a cell; a table may ask for more.
        dominance: of sums.
    """

    minimum: int
    dominance: DominanceRules


@dataclass(frozen=True, slots=True)
class Hidden:
    """What of one table may be told.

    Attributes:
        told: per cell, in the table's shape; None where the table is left out whole.
        code: why it is left out whole, or why cells are hidden; None where everything is told.
    """

    told: NDArray[np.bool_] | None
    code: RefusalCode | None


def is_small(count: int, minimum: int) -> bool:
    """Whether a number of patients is too small to tell; nobody is no patient's secret."""
    return 0 < count < minimum


def is_concentrated(contributions: Values, rules: DominanceRules) -> bool:
    """Whether few of the contributions (none negative) are nearly all of their sum.

    >>> is_concentrated(np.array([52_000.0, 50_000.0, 8_000.0]), DominanceRules(share=0.95, p_percent=10.0))
    False
    >>> is_concentrated(np.array([50_000.0, 49_000.0, 1_000.0]), DominanceRules(largest=1, share=0.9, p_percent=10.0))
    True
    """
    ordered = np.sort(contributions)[::-1]
    total = float(ordered.sum())
    if total <= 0:
        return False
    first = float(ordered[0])
    rest = float(ordered[2:].sum())
    return float(ordered[: rules.largest].sum()) > rules.share * total or rest < rules.p_percent / 100 * first


def is_bounded_closely(contributions: Values, rules: DominanceRules) -> bool:
    """Whether sum and sum of squares tell the largest contribution to within p% of it, to who contributed the second.

    The m others have the mean a and the standard deviation s without those of the second: the largest of them is at most
    a + s * sqrt(m - 1) (Samuelson 1968).
    """
    ordered = np.sort(contributions)[::-1]
    if len(ordered) < 3 or ordered[0] <= 0:
        return True
    others = np.delete(ordered, 1)
    bound = float(others.mean() + others.std() * np.sqrt(len(others) - 1))
    return bound < (1 + rules.p_percent / 100) * float(ordered[0])


def sum_problem(
    values: Values, minimum: int, bounds: tuple[float, float] | None, rules: DominanceRules
) -> RefusalCode | None:
    """Return why patients, sum and sum of squares of these values may not be told, or None.

    Args:
        values: one of each patient.
        minimum: the least patients.
        bounds: the column's own, which are public; None where they are not known here.
        rules: the policy's.
    """
    if len(values) == 0:
        return None
    if len(values) < minimum:
        return RefusalCode.RELEASE_CELL_TOO_SMALL
    often = np.unique(values, return_counts=True)[1]
    few_values = len(often) <= _TELLING and int(often.min()) < minimum
    one_value = len(often) == 1 or (
        2 * int(often.max()) >= len(values) and len(values) - int(often.max()) < minimum
    )
    sides = [np.abs(values)]
    if bounds is not None:
        sides += [np.maximum(values - bounds[0], 0), np.maximum(bounds[1] - values, 0)]
    if few_values or one_value or any(is_concentrated(side, rules) for side in sides):
        return RefusalCode.RELEASE_DOMINATED
    # Squares bound a value from above where all lie on one side of zero; else where all lie above the public bound.
    signed = float(values.min()) < 0 < float(values.max())
    if not signed and is_bounded_closely(sides[0], rules):
        return RefusalCode.RELEASE_DOMINATED
    if signed and bounds is not None and is_bounded_closely(sides[1], rules):
        return RefusalCode.RELEASE_DOMINATED
    return RefusalCode.RELEASE_DOMINATED if few_off_a_lattice(values, minimum) else None


def protection(values: Values, rules: DominanceRules) -> float:
    """Return by how much a hidden sum must be uncertain from above: the upper protection level of the Handbook's table 4.3.

    Args:
        values: one of each patient.
        rules: the policy's.

    >>> round(protection(np.array([300.0, 20.0, 10.0]), DominanceRules(largest=1, share=0.85, p_percent=1.0)), 2)
    22.94
    """
    ordered = np.sort(np.abs(values))[::-1]
    if len(ordered) == 0:
        return 0.0
    total = float(ordered.sum())
    first, second = float(ordered[0]), float(ordered[1]) if len(ordered) > 1 else 0.0
    by_share = float(ordered[: rules.largest].sum()) / rules.share - total
    by_percent = rules.p_percent / 100 * first - (total - first - second)
    return max(by_share, by_percent, rules.p_percent / 100 * first)
