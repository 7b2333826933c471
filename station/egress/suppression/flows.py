"""What an attacker can work out of one hidden cell of a crosstab: a flow in a graph of lines and columns.

With all margins known, a cell can grow by as much as can flow from its line to its column through the other hidden cells, down in
one and up in the next (Gusfield, "A graph theoretic approach to statistical data security", 1988). Exact, and in whole patients.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from station.egress.suppression.demands import Bounds
from station.egress.suppression.lines import Counts, Mask

_STEP: Final = 200
"""What starting one flow costs, in the units of one hidden cell."""
_RECTANGLES: Final = 16
"""So many rectangles are tried before a flow is looked for."""


class OutOfWork(Exception):  # noqa: N818 - an outcome, not an error
    """The search took more steps than it may."""


class Work:
    """Steps that a search may still take: the same for the same tables on every machine, which seconds are not."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        """Take steps.

        Raises:
            OutOfWork: there are none left.
        """
        self.left -= steps
        if self.left < 0:
            raise OutOfWork


class Allowance:
    """Steps for several searches, one after the other."""

    def __init__(self, steps: int, searches: int) -> None:
        self._left, self._searches = steps, max(1, searches)

    @contextmanager
    def part(self) -> Iterator[Work]:
        """Give the next search its part of what is left."""
        work = Work(self._left // self._searches)
        before = work.left
        yield work
        self._left -= before - max(0, work.left)
        self._searches = max(1, self._searches - 1)


class Slack:
    """How much hidden cells can move between bounds."""

    def __init__(self, counts: Counts, hidden: Mask, bounds: Bounds, work: Work) -> None:
        self._down = np.where(hidden, counts - bounds.lower, 0)
        self._up = np.where(hidden, bounds.upper - counts, 0)
        self._work = work
        lines, columns = np.nonzero(hidden)
        self._ends = (
            np.concatenate([lines, columns + len(counts)]),
            np.concatenate([columns + len(counts), lines]),
        )
        self._cells = (lines, columns)
        self._nodes = sum(counts.shape)

    def grows(self, line: int, column: int, need: int) -> int:
        """Return by how much a cell can grow, or `need` where that is less."""
        return self._moves(line, column, min(need, int(self._up[line, column])), self._down, self._up)

    def shrinks(self, line: int, column: int, need: int) -> int:
        """Return by how much a cell can shrink, or `need` where that is less."""
        return self._moves(line, column, min(need, int(self._down[line, column])), self._up, self._down)

    def _moves(self, line: int, column: int, need: int, beside: Counts, across: Counts) -> int:
        """`beside`: what the cells of the same line and column give; `across`: what the fourth corner takes."""
        if need <= 0:
            return 0
        in_line, in_column, corners = beside[line].copy(), beside[:, column].copy(), across.copy()
        in_line[column] = in_column[line] = 0
        most = min(int(in_line.sum()), int(in_column.sum()), need)
        if most < need:
            return 0 if most == 0 else min(most, self._flow(line, column, beside, across))
        # Rectangles that share no line or column are a flow that is quickly found.
        found = 0
        for _ in range(_RECTANGLES):
            self._work.spend(beside.size // 16 + 1)
            amounts = np.minimum(np.minimum(in_line[None, :], in_column[:, None]), corners)
            other_line, other_column = np.unravel_index(int(amounts.argmax()), amounts.shape)
            found += int(amounts[other_line, other_column])
            if found >= need:
                return need
            if amounts[other_line, other_column] == 0:
                break
            in_line[other_column] = in_column[other_line] = 0
        return min(need, self._flow(line, column, beside, across))

    def _flow(self, line: int, column: int, beside: Counts, across: Counts) -> int:
        lines, columns = self._cells
        self._work.spend(_STEP + len(lines))
        keep = (lines != line) | (columns != column)
        forth = np.where(keep, beside[lines, columns], 0)
        back = np.where(keep, across[lines, columns], 0)
        capacities = np.minimum(np.concatenate([forth, back]), np.iinfo(np.int32).max // 4).astype(np.int32)
        graph = csr_array((capacities, self._ends), shape=(self._nodes, self._nodes))
        return int(maximum_flow(graph, line, self._down.shape[0] + column).flow_value)
