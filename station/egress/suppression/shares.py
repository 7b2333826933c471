"""What sums tell of few beside another table: the same values dealt out otherwise, and values that follow from another's cells.

- **Same values.** A sum leaves with its number of patients and its squares, so whoever holds two takes (v - c) or (v - c)(v - d) of
  each patient in the difference: who has c or d adds nothing. So the cut of `differencing.cuts` is asked of the others too, for
  the values that are frequent. And where a told cell lies within the other table's, what they differ by is held to the rules of a sum.
- **Values by cells.** Where a value follows from the cell that another table counts somebody in, the counts tell what all add,
  but for those of whom it does not follow.
"""

from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.policy import DominanceRules
from policies.refusals import RefusalCode
from station.egress.differencing.cuts import NOBODY, fewest_isolated
from station.egress.suppression.rules import Values, is_concentrated, sum_problem

_NEAR: Final = 1e-9
_FREQUENT: Final = 8
_IN_PAIRS: Final = 4

Cells = NDArray[np.integer[Any]]
Line = tuple[float, float]


def line_between(first: Values, second: Values) -> Line | None:
    """Return the slope and offset by which all second values follow from the first; None where they do not, or all are alike."""
    if len(first) == 0:
        return None
    low, high = int(first.argmin()), int(first.argmax())
    if first[low] == first[high]:
        return None
    if bool((first == second).all()):
        return 1.0, 0.0
    slope = float((second[high] - second[low]) / (first[high] - first[low]))
    if slope == 0 or not np.isfinite(slope):
        return None
    offset = float(second[low] - slope * first[low])
    gap = np.abs(second[low] + slope * (first - first[low]) - second)
    return (slope, offset) if float(gap.max()) <= _NEAR * max(1.0, float(np.abs(second).max())) else None


def same_values_tell(
    one: Cells, other: Cells, values: Values, minimum: int, rules: DominanceRules, zero: float = 0.0
) -> bool:
    """Whether two tables of sums of the same values tell what fewer patients than the minimum add.

    Args:
        one: each patient's told cell, or `NOBODY`. Shape (patients,).
        other: likewise in the other table.
        values: of each patient.
        minimum: the least patients.
        rules: on sums.
        zero: which of the values the other table, that may have another scale, sums as nothing.
    """
    either = (one != NOBODY) | (other != NOBODY)
    mine: NDArray[np.int32] = one[either].astype(np.int32)
    theirs: NDArray[np.int32] = other[either].astype(np.int32)
    values = values[either]
    near = _NEAR * max(1.0, float(np.abs(values).max(initial=0.0)))
    for nothing in {0.0, zero}:
        left = np.abs(values - nothing) > near
        # A cell that a laxer policy told is a cut too, of one table alone: that was its own rules' to judge.
        least = min(minimum, _smallest(mine), _smallest(theirs))
        if fewest_isolated(mine[left], theirs[left], least) is not None:
            return True
    for gone in _common(values):
        left = np.all([np.abs(values - value) > near for value in gone], axis=0)
        a, b = mine[left], theirs[left]
        # At least the minimum differ: what is left of them is few where it is no more than half of that.
        least = min(minimum // 2 + 1, _smallest(a), _smallest(b))
        if fewest_isolated(a, b, least) is not None:
            return True
    return any(
        len(apart) >= minimum and sum_problem(apart, minimum, None, rules) is RefusalCode.RELEASE_DOMINATED
        for apart in _within(mine, theirs, values)
    )


def _common(values: Values) -> list[tuple[float, ...]]:
    """Return the values that patients have in common, most frequent first, the outermost, and pairs of the most frequent."""
    found, often = np.unique(values, return_counts=True)
    if len(found) < 2:
        return []
    order = np.argsort(-often, kind="stable")
    frequent = [float(found[place]) for place in order[:_FREQUENT] if often[place] > 1]
    ends = [float(found[place]) for place in (0, -1) if often[place] > 1]
    return [*((one,) for one in dict.fromkeys([*frequent, *ends])), *combinations(frequent[:_IN_PAIRS], 2)]


def _smallest(cells: Cells) -> int:
    told = np.bincount(cells[cells != NOBODY])
    return int(told[told > 0].min(initial=len(cells) + 1))


def _within(one: Cells, other: Cells, values: Values) -> list[Values]:
    """Return what cells, and all cells together, have more than those of the other table that lie within them."""
    found = []
    for large, small in ((one, other), (other, one)):
        whole_large, whole_small = (np.where(side != NOBODY, 0, NOBODY) for side in (large, small))
        for outer in (large, whole_large):
            for inner in (small, whole_small):
                found += _differences(outer, inner, values)
    return found


def _differences(outer: Cells, inner: Cells, values: Values) -> list[Values]:
    found = []
    for cell in np.unique(inner[inner != NOBODY]):
        inside = inner == cell
        around = np.unique(outer[inside])
        if len(around) == 1 and around[0] != NOBODY:
            found.append(values[(outer == around[0]) & ~inside])
    return found


def counts_tell(values: Values, cells: Cells, minimum: int, rules: DominanceRules) -> bool:
    """Whether a sum of values, beside the numbers of patients in cells, tells what few of them have.

    The value that is most frequent in a cell is taken as what the cell says of its patients; they are fewer than the minimum for
    whom it is not so, or two of them are most of what is left. Whose cell is not told are a cell together.

    Args:
        values: of those who are summed.
        cells: their told cells in the other table, or `NOBODY`.
        minimum: the least patients.
        rules: the policy's.
    """
    if len(values) == 0:
        return False
    for told in (values, values * values):
        near = np.rint(told * 1e6) if float(np.abs(told).max()) < 1e9 else told
        pairs, often = np.unique(np.stack([cells.astype(np.float64), near]), axis=1, return_counts=True)
        _, first = np.unique(pairs[0], return_index=True)
        off = len(told) - int(np.maximum.reduceat(often, first).sum())
        if 0 < off < minimum and 2 * off <= len(told):
            return True
    rest = values - _middles(values, cells)
    return bool(np.any(rest)) and is_concentrated(np.abs(rest), rules)


def _middles(values: Values, cells: Cells) -> Values:
    """Return the median of each patient's cell: one of its values."""
    order = np.lexsort((values, cells))
    _, first, where, sizes = np.unique(
        cells[order], return_index=True, return_inverse=True, return_counts=True
    )
    found = np.empty(len(values))
    found[order] = values[order][first + sizes // 2][where]
    return found
