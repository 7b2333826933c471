"""Quantiles that tell no small number: the edges of bins that hold a quantile and at least the minimum of patients.

The quantile at p of n patients is the value of rank ``ceil(p n)`` (the inverse of the empirical distribution function, definition
1 of Hyndman and Fan, The American Statistician 50:361, 1996). Its exact value is one patient's; told are two edges that the
manifest declares.

The bins are put together first, without looking at what is asked: from the lowest upwards, a group is closed as soon as it holds
the minimum; what is left over at the end joins the last group. A quantile is told as the group that it lies in. So two answers are
the same group or have no bin in common. Intervals that were widened around each quantile by itself would overlap, and the ranks in
them would tell how many lie in the overlap and beside it, however few (as overlapping tables do: Dobra and Fienberg, PNAS 97:11885,
2000). What the answers tell together, with the number of all: between which numbers the patients below the edge of a group lie, and
that is a number of whole groups. Of bins inside a group follows that all but its last hold fewer than the minimum, as of hidden
cells; a test goes through every small table.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

Interval = tuple[float, float]


def groups(counts: Sequence[int], minimum: int) -> tuple[tuple[int, int], ...]:
    """Put neighbouring bins together until each group holds the minimum; none where all together do not.

    Args:
        counts: patients per bin.
        minimum: at least 1.

    Returns:
        First and last bin of each group, all bins in order.

    >>> groups((3, 9, 30, 0, 2), 10)
    ((0, 1), (2, 4))
    """
    closed: list[tuple[int, int]] = []
    first, inside = 0, 0
    for place, count in enumerate(counts):
        inside += count
        if inside >= minimum:
            closed.append((first, place))
            first, inside = place + 1, 0
    if closed and first < len(counts):
        closed[-1] = (closed[-1][0], len(counts) - 1)
    return tuple(closed)


def quantile_intervals(
    counts: Sequence[int], ends: Sequence[float], probabilities: Sequence[float], minimum: int
) -> tuple[Interval, ...] | None:
    """Return between which edges each quantile lies; None where there are fewer patients than the minimum.

    Args:
        counts: patients per bin.
        ends: of the bins, one more than there are.
        probabilities: above 0 and below 1.
        minimum: patients that an interval holds at least.

    >>> quantile_intervals((3, 9, 30, 0, 2), (0, 1, 2, 3, 4, 5), (0.25, 0.5), 10)
    ((0, 2), (2, 5))
    """
    parts = groups(counts, max(1, minimum))
    if not parts:
        return None
    below = [sum(counts[: last + 1]) for _, last in parts]
    told = []
    for probability in probabilities:
        # By its decimals, not by its binary fraction: 0.1 of 30 is 3.
        rank = max(1, math.ceil(Fraction(repr(probability)) * sum(counts)))
        first, last = next(part for part, reached in zip(parts, below, strict=True) if reached >= rank)
        told.append((ends[first], ends[last + 1]))
    return tuple(told)
