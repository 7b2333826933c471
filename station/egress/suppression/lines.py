"""One equation: the cells of a column, and their sum, which everybody may know.

    hidden  = every cell below the minimum, empty ones too (a mark says of nobody that they are there)
            + the next smallest, equal ones at once, until what is hidden protects itself

What is hidden protects itself (`is_safe`) where together it is the minimum of patients, and where the small cells could be
otherwise, seen by somebody who knows these rules too: with the cells below the minimum anywhere in 0 .. minimum - 1 and the
others anywhere between the minimum and the smallest told one, each small cell still has a room of half the minimum. All these
tables tell the same, so knowing the algorithm tells nothing more (a "minimality attack": Wong, Fu, Wang and Pei 2007).
"""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]


def room(minimum: int) -> int:
    """Return how far apart the values must lie that a hidden small count may have for who knows the rules."""
    return max(1, minimum // 2)


def has_small(counts: Counts, minimum: int) -> bool:
    """Whether some cell is neither empty nor large enough."""
    return bool(((counts > 0) & (counts < minimum)).any())


def hide_line(counts: Counts, minimum: int, known: Mask | None = None) -> Mask | None:
    """Return which cells of a column to hide; None where nothing would be left.

    Args:
        counts: patients per cell.
        minimum: the least of a told cell.
        known: cells that are told otherwise, so that hiding them protects nothing.

    >>> hide_line(np.array([12, 3, 20, 0]), 10).tolist()
    [True, True, False, True]
    >>> hide_line(np.array([97, 3]), 10) is None
    True
    """
    told_anyway = np.zeros(len(counts), dtype=bool) if known is None else known
    if not has_small(counts, minimum):
        return np.zeros(len(counts), dtype=bool)
    if has_small(counts[told_anyway], minimum):
        return None
    hidden = (counts < minimum) & ~told_anyway
    while not is_safe(counts, hidden, minimum, told_anyway):
        left = counts[~hidden & ~told_anyway]
        if len(left) == 0:
            return None
        hidden = hidden | ((counts == left.min()) & ~told_anyway)
    return None if bool((hidden | told_anyway).all()) else hidden


def is_safe(counts: Counts, hidden: Mask, minimum: int, known: Mask) -> bool:
    """Whether the hidden cells of a column follow neither from their sum nor from how they were chosen."""
    if not hidden.any():
        return not has_small(counts, minimum)
    if has_small(counts[~hidden], minimum):
        return False
    total = int(counts[hidden].sum())
    small = counts[hidden] < minimum
    few, many = int(small.sum()), int((~small).sum())
    if few == 0 or few + many < 2 or total < minimum:
        return few == 0
    left = counts[~hidden & ~known]
    above = (int(left.min()) if len(left) else total + 1) - 1
    least, most = 0, minimum - 1
    # One small cell alone is not empty: else nothing would be hidden.
    low = max(1 if few == 1 else least, total - (few - 1) * most - many * above)
    high = min(most, total - (few - 1) * least - many * minimum)
    return high - low >= min(room(minimum), most - (1 if few == 1 else 0))
