"""Which cells of a crosstab to hide so that no small one follows from the others and the margins.

    hidden  = every cell below the minimum, empty ones too, in a table with a small one
            + every line and column whose own number is hidden
            + for each cell that could still be worked out: the three other corners of a rectangle

Rectangles are what tau-Argus' hypercube method hides (Repsilber 1994; Giessing and Repsilber 2002): with all four corners hidden,
patients can be thought from two of them into the other two, and no sum changes. The cheapest is taken, and what a cell costs is
what the *margins* make one expect in it, not what is in it: who knows the table that leaves and these rules can follow the choice
without the hidden numbers. The price is a pattern that is not always the smallest.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from station.egress.suppression.demands import Bounds, first_hidden, insider, outsider, protected
from station.egress.suppression.flows import OutOfWork, Slack, Work
from station.egress.suppression.lines import Counts, Mask

_TRIES: Final = 64
"""So many rounds of adding rectangles at the most."""


def hide_crosstab(
    counts: Counts, minimum: int, hidden_lines: Mask, hidden_columns: Mask, work: Work
) -> Mask | None:
    """Return which cells of a crosstab to hide; None where it is to be left out whole.

    Args:
        counts: patients per cell. Shape (lines, columns).
        minimum: the least of a told cell.
        hidden_lines: lines whose sums are told nowhere.
        hidden_columns: columns whose sums are told nowhere.
        work: what the search may take.
    """
    first = first_hidden(counts, minimum)
    hidden = first | hidden_lines[:, None] | hidden_columns[None, :]
    costs = np.outer(counts.sum(axis=1), counts.sum(axis=0)).astype(np.float64)
    try:
        for _ in range(_TRIES):
            if bool(hidden.all()):
                return None
            open_cells = exposed(counts, hidden, minimum, work)
            if not open_cells:
                return hidden
            before = hidden.copy()
            for line, column in open_cells:
                _add_rectangle(hidden, first, costs, line, column)
            if bool((before == hidden).all()):
                return None
    except OutOfWork:
        return None
    return None


def exposed(counts: Counts, hidden: Mask, minimum: int, work: Work) -> list[tuple[int, int]]:
    """Return the cells of which an attacker works out more than the demands allow."""
    found = []
    outside, inside = outsider(counts, hidden, minimum), insider(counts, hidden, minimum)
    slack_outside = Slack(counts, hidden, outside, work)
    slack_inside = Slack(counts, hidden, inside, work)
    for line, column in protected(counts, minimum):
        place = int(line), int(column)
        if not _reaches(counts, outside, slack_outside, place) or not _reaches(
            counts, inside, slack_inside, place
        ):
            found.append(place)
    return found


def _reaches(counts: Counts, bounds: Bounds, slack: Slack, place: tuple[int, int]) -> bool:
    here = int(counts[place])
    up, down = int(bounds.reach_high[place]) - here, here - int(bounds.reach_low[place])
    if slack.grows(*place, up) < max(up, 0) or slack.shrinks(*place, down) < max(down, 0):
        return False
    spread = int(bounds.spread[place])
    grown = slack.grows(*place, spread)
    return grown >= spread or grown + slack.shrinks(*place, spread - grown) >= spread


def _add_rectangle(hidden: Mask, first: Mask, costs: NDArray[np.float64], line: int, column: int) -> None:
    """Hide the cheapest three corners that make a rectangle with a cell; those that were too small themselves hold nothing."""
    new = np.where(hidden, 0.0, costs + 1.0)
    price = new + new[line][None, :] + new[:, column][:, None]
    small = first + first[line][None, :].astype(int) + first[:, column][:, None].astype(int)
    usable = (
        (price > 0)
        & (np.arange(len(costs)) != line)[:, None]
        & (np.arange(costs.shape[1]) != column)[None, :]
    )
    if not usable.any():
        return
    # Corners that were hidden as too small count for less: they have few patients to give.
    order = np.where(usable, price + small * (float(costs.max()) * 4 + 4), np.inf)
    other_line, other_column = np.unravel_index(int(order.argmin()), order.shape)
    hidden[line, other_column] = hidden[other_line, column] = hidden[other_line, other_column] = True
