"""The gate: what is to be told is attacked before it leaves, by linear programming, whoever chose it.

For each hidden cell the attacker's problem (Fischetti and Salazar, "Models and algorithms for optimizing cell suppression in
tabular data with linear constraints", 2000): how small and how large can it be, given every told cell and every sum? The answer
is taken only as a whole table of counts that was checked against all of them, so an inexact solver can make this refuse what is
safe, never pass what is not.

This module takes nothing from those that choose what to hide: only what must stay open (`demands`).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array

from station.egress.suppression.demands import Bounds, insider, outsider, protected
from station.egress.suppression.flows import OutOfWork, Work
from station.egress.suppression.lines import Counts, Mask, has_small, room

_START: Final = 12_000
"""What starting one linear program costs, in the units of one hidden cell."""
_TOGETHER: Final = 12
"""So many programs ask for many cells at once before each cell is asked for alone."""
_RECTANGLES: Final = 16
"""So many rectangles are tried with a cell before a program is solved for it."""

Floats = NDArray[np.float64]


class Attack:
    """What one attacker can work out of unknown counts of which sums are known.

    Attributes:
        least: of each unknown, the smallest number in a possible table that was found.
        most: the largest.
    """

    def __init__(self, sums: csr_array, counts: Counts, lower: Counts, upper: Counts, work: Work) -> None:
        self._sums, self._known = sums, sums @ counts
        self._lower, self._upper, self._work = lower, upper, work
        self.least, self.most = counts.copy(), counts.copy()

    def push(self, wanted: Floats) -> None:
        """Look for a possible table with as much as can be of what is wanted; remember what it shows.

        Raises:
            OutOfWork: there is no work left for it.
        """
        self._work.spend(_START + 24 * len(wanted))
        found = linprog(
            -wanted, A_eq=self._sums, b_eq=self._known,
            bounds=np.stack([self._lower, self._upper], axis=1), method="highs",
        )  # fmt: skip
        if found.status != 0:
            return
        table = np.rint(found.x).astype(np.int64)
        possible = (table >= self._lower).all() and (table <= self._upper).all()
        if possible and bool((self._sums @ table == self._known).all()):
            self.least, self.most = np.minimum(self.least, table), np.maximum(self.most, table)

    def meets(self, low: Counts, high: Counts, spread: Counts, cells: Counts) -> bool:
        """Whether each of some cells can come down to `low`, up to `high`, and has values `spread` apart."""

        def unmet() -> Counts:
            wrong = (self.least > low) | (self.most < high) | (self.most - self.least < spread)
            return cells[wrong[cells]]

        for turn in range(_TOGETHER):
            left = unmet()
            if len(left) == 0:
                return True
            wanted = np.zeros(len(low))
            # Some of them up and the others down, differently each time: what one gains another loses.
            wanted[left] = (
                np.where((left + turn // 2) % 2 == turn % 2, 1.0, -1.0) if turn % 3 else 1.0 - turn % 2 * 2
            )
            self.push(wanted)
        for cell in unmet():
            self._push_alone(int(cell), int(low[cell]), int(high[cell]), int(spread[cell]))
        return len(unmet()) == 0

    def _push_alone(self, cell: int, low: int, high: int, spread: int) -> None:
        wanted = np.zeros(len(self.least))
        wanted[cell] = 1.0
        if self.most[cell] < high or self.most[cell] - self.least[cell] < spread:
            self.push(wanted)
        if self.least[cell] > low or self.most[cell] - self.least[cell] < spread:
            self.push(-wanted)


def crosstab_is_safe(
    counts: Counts, hidden: Mask, minimum: int, hidden_lines: Mask, hidden_columns: Mask, work: Work
) -> bool:
    """Whether nothing of few patients follows from the told cells of a crosstab and its margins.

    1. No told cell is small.
    2. A line or column whose sum is told nowhere tells none of its cells.
    3. Every protected cell is as open as the demands say, to both attackers.

    Args:
        counts: patients per cell. Shape (lines, columns).
        hidden: what is not told.
        minimum: the least of a told cell.
        hidden_lines: lines whose sums are told nowhere.
        hidden_columns: columns whose sums are told nowhere.
        work: what the attack may take; where it is not enough, nothing is safe.
    """
    if has_small(counts[~hidden], minimum):
        return False
    if not hidden[hidden_lines].all() or not hidden[:, hidden_columns].all():
        return False
    places = protected(counts, minimum)
    if len(places) == 0:
        return True
    if not hidden[tuple(places.T)].all():
        return False
    where = np.flatnonzero(hidden)
    cells = np.searchsorted(where, np.ravel_multi_index(tuple(places.T), counts.shape))
    sums = _sums_of(np.nonzero(hidden), counts.shape)
    try:
        return all(
            _attacked(sums, counts.ravel(), bounds, where, cells, work)
            for bounds in (outsider(counts, hidden, minimum), insider(counts, hidden, minimum))
        )
    except OutOfWork:
        return False


def _sums_of(places: tuple[NDArray[np.intp], ...], shape: tuple[int, ...]) -> csr_array:
    lines, columns = places
    number = np.arange(len(lines))
    ones = np.ones(2 * len(lines), dtype=np.int64)
    rows = np.concatenate([lines, columns + shape[0]])
    return csr_array((ones, (rows, np.concatenate([number, number]))), shape=(sum(shape), len(lines)))


def _attacked(
    sums: csr_array, counts: Counts, bounds: Bounds, where: NDArray[np.intp], cells: Counts, work: Work
) -> bool:
    attack = Attack(sums, counts[where], bounds.lower.ravel()[where], bounds.upper.ravel()[where], work)
    down = np.where(bounds.hidden, counts.reshape(bounds.hidden.shape) - bounds.lower, 0)
    up = np.where(bounds.hidden, bounds.upper - counts.reshape(bounds.hidden.shape), 0)
    for cell in cells:
        place = np.unravel_index(where[cell], bounds.hidden.shape)
        spread, here = int(bounds.spread[place]), int(counts[where[cell]])
        attack.most[cell] += _moved(place, down, up, max(spread, int(bounds.reach_high[place]) - here), work)
        attack.least[cell] -= _moved(place, up, down, max(spread, here - int(bounds.reach_low[place])), work)
    low, high = bounds.reach_low.ravel()[where], bounds.reach_high.ravel()[where]
    return attack.meets(low, high, bounds.spread.ravel()[where], cells)


def _moved(place: tuple[np.intp, ...], beside: Counts, across: Counts, need: int, work: Work) -> int:
    """Return by how much a cell moves for sure: patients thought around rectangles that share no other line or column.

    Such a table can be written down: the cell and the corners across get more, the corners beside it get less (or the reverse).
    """
    line, column = place
    in_line, in_column, moved = beside[line].copy(), beside[:, column].copy(), 0
    in_line[column] = in_column[line] = 0
    for _ in range(_RECTANGLES):
        work.spend(beside.size // 16 + 1)
        amounts = np.minimum(np.minimum(in_line[None, :], in_column[:, None]), across)
        other_line, other_column = np.unravel_index(int(amounts.argmax()), amounts.shape)
        if amounts[other_line, other_column] == 0 or moved >= need:
            break
        moved += int(amounts[other_line, other_column])
        in_line[other_column] = in_column[other_line] = 0
    return min(moved, int(across[line, column]))


def line_is_safe(counts: Counts, hidden: Mask, minimum: int, known: Mask, work: Work) -> bool:
    """Whether nothing of few patients follows from the told cells of one column and its sum.

    Args:
        counts: patients per cell.
        hidden: what is not told.
        minimum: the least of a told cell.
        known: cells that everybody knows otherwise.
        work: what the attack may take; where it is not enough, nothing is safe.
    """
    if has_small(counts[~hidden | known], minimum):
        return False
    first = hidden & ~known & (counts < minimum)
    if not (first & (counts > 0)).any():
        return True
    where = np.flatnonzero(hidden & ~known)
    here, small = counts[where], first[where]
    told = counts[~hidden & ~known]
    above = int(told.min()) - 1 if len(told) else int(here.sum())
    floor = 1 if int(small.sum()) == 1 else 0
    sums = csr_array(np.ones((1, len(where)), dtype=np.int64))
    cells = np.flatnonzero(small)
    total, zero = np.full(len(where), here.sum()), np.zeros(len(where), dtype=np.int64)
    outside = Attack(sums, here, zero, total, work)
    inside = Attack(
        sums, here, np.where(small, floor, minimum), np.where(small, minimum - 1, max(above, minimum)), work
    )
    spread = np.full(len(where), min(room(minimum), minimum - 1 - floor))
    try:
        return outside.meets(zero, np.full(len(where), minimum), zero, cells) and inside.meets(
            here, here, spread, cells
        )
    except OutOfWork:
        return False
