"""What must stay open about the hidden cells of a crosstab, to somebody who knows every margin and these rules.

Two attackers, both with all told cells, the sums of every line and column, and the sum of all:

- the *outsider* knows no more than that counts are not negative;
- the *insider of the method* knows how cells are chosen too: that what was hidden first lies below the minimum, and what was
  hidden with it does not.

For each cell that was hidden as too small (or empty), the outsider must find 0 possible and the minimum too; the insider at least
`room(minimum)` different values. Margins alone may rule that out: of a line of three patients nobody can hold the minimum. What a
margin rules out by itself is no fault of a pattern, so a demand is never more than the margins alone leave open.

All demands rest on what is told and on which cells were hidden first, not on the hidden numbers: every table with the same answer
has the same demands, so that the verdict tells nothing of them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from station.egress.suppression.lines import Counts, Mask, has_small, room


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an attacker takes for granted of each cell, and what must stay open to them.

    Attributes:
        hidden: which cells are not told.
        lower: least value of each cell; that of a told one is its own.
        upper: largest.
        reach_low: a value that a protected cell must be able to come down to.
        reach_high: a value that it must be able to come up to.
        spread: how far apart its possible values must lie.
    """

    hidden: Mask
    lower: Counts
    upper: Counts
    reach_low: Counts
    reach_high: Counts
    spread: Counts


def first_hidden(counts: Counts, minimum: int) -> Mask:
    """Return the cells that are hidden for their own sake: all below the minimum, where one of them is not empty."""
    if not has_small(counts, minimum):
        return np.zeros(counts.shape, dtype=bool)
    return counts < minimum


def _by_margins(counts: Counts) -> tuple[Counts, Counts]:
    """Return the least and the most that the margins alone leave to each cell (Frechet 1940)."""
    lines, columns = counts.sum(axis=1, keepdims=True), counts.sum(axis=0, keepdims=True)
    return np.maximum(0, lines + columns - counts.sum()), np.minimum(lines, columns)


def outsider(counts: Counts, hidden: Mask, minimum: int) -> Bounds:
    """Return the bounds and the demands of who knows that counts are not negative."""
    least, most = _by_margins(counts)
    return Bounds(
        hidden,
        np.where(hidden, 0, counts),
        np.where(hidden, most, counts),
        least,
        np.minimum(most, minimum),
        np.zeros(counts.shape, dtype=np.int64),
    )


def insider(counts: Counts, hidden: Mask, minimum: int) -> Bounds:
    """Return the bounds and the demands of who knows how cells are chosen."""
    first = first_hidden(counts, minimum)
    # One cell alone that was hidden first is not empty: else nothing would be hidden.
    floor = 1 if int(first.sum()) == 1 else 0
    lower = np.where(first, floor, np.where(hidden & (counts >= minimum), minimum, counts))
    least, most = _by_margins(counts)
    upper = np.where(hidden, np.where(first, np.minimum(minimum - 1, most), most), counts)
    open_by_margins = np.minimum(minimum - 1, most) - np.maximum(floor, least)
    return Bounds(
        hidden,
        lower,
        upper,
        counts,
        counts,
        np.minimum(room(minimum), np.maximum(0, open_by_margins)),
    )


def protected(counts: Counts, minimum: int) -> NDArray[np.intp]:
    """Return the places (line, column) of the cells that must stay open."""
    least, most = _by_margins(counts)
    return np.argwhere(first_hidden(counts, minimum) & (most > least))
