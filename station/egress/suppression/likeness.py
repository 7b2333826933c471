"""Tables of one release that tell of few patients together, whatever their columns are called.

A train chooses its columns, and may give one content two names. So columns of different names are compared by how patients lie in them:

- told cells: no combination of two tables' numbers may depend on fewer patients than the minimum (`station.egress.differencing.cuts`);
- sums: where most patients' values in one column are a multiple of those in another and a number, those of whom that is not true are
  none, or enough, and no few of them make up the difference;
- a sum beside counts of its own column: the bins tell nearly what the others add, so what is left for one bin is a sum of its own.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from policies.policy import DominanceRules
from policies.refusals import RefusalCode
from station.egress.differencing.cuts import NOBODY, fewest_isolated
from station.egress.suppression.flows import Work
from station.egress.suppression.rules import Values, protection, sum_problem

_NEAR: Final = 1e-9
"""So close, relative to what they are, two values are taken for one."""

Cells = NDArray[np.int64]


def isolates_few(one: Cells, other: Cells, minimum: int, work: Work) -> bool:
    """Whether a combination of two tables' told numbers depends on fewer patients than the minimum.

    Args:
        one: each patient's told cell, or `NOBODY`. Shape (patients,).
        other: likewise in the other table.
        minimum: the least patients.
        work: a step for each pair of cells that share patients.

    Raises:
        OutOfWork: there is no work left for it.
    """
    codes, counts = np.unique(np.stack([one + 1, other + 1]), axis=1, return_counts=True)
    strong = counts >= minimum
    if bool(strong.all()):
        return False
    # Cells that share the minimum of patients are never told apart by few: where that joins all that hang together, none are.
    width = int(one.max(initial=0)) + 2
    right = np.where(codes[1] == 0, 0, codes[1] + width)
    nodes = width + int(other.max(initial=0)) + 3
    parts, joined = (
        connected_components(
            csr_array((np.ones(int(edges.sum())), (codes[0][edges], right[edges])), shape=(nodes, nodes))
        )[0]
        for edges in (np.ones(len(counts), dtype=bool), strong)
    )
    if parts == joined:
        return False
    work.spend(len(counts))
    return fewest_isolated(one.astype(np.int32), other.astype(np.int32), minimum) is not None


def sums_tell_few(first: Values, second: Values, minimum: int, rules: DominanceRules) -> bool:
    """Whether two sums, and sums of squares, over the same patients tell of few of them together.

    Args:
        first: one value of each patient; 0 where there is none.
        second: likewise, in the same order.
        minimum: the least patients that may be off the line that most lie on.
        rules: which few may not make up the difference.
    """
    return any(
        _apart(left, right, minimum, rules)
        for left in (first, first * first)
        for right in (second, second * second)
    )


def _apart(first: Values, second: Values, minimum: int, rules: DominanceRules) -> bool:
    if len(first) == 0:
        return False
    rests = [_rest(second - first * slope) for slope in _slopes(first, second)]
    nearest = min(rests, key=len, default=first)
    if len(nearest) == 0 or 2 * len(nearest) >= len(first):
        return False
    return sum_problem(nearest, minimum, None, rules) is not None


def _slopes(first: Values, second: Values) -> list[float]:
    """Return slopes that most patients could lie on: the plain ones, and the median between neighbours and between halves."""
    order = np.lexsort((second, first))
    x, y = first[order], second[order]
    found = [1.0, -1.0, 0.0]
    for step in (1, max(1, len(x) // 2)):
        runs, rises = x[step:] - x[:-step], y[step:] - y[:-step]
        slopes = np.sort(rises[runs > 0] / runs[runs > 0])
        if len(slopes):
            found.append(float(slopes[len(slopes) // 2]))
    return [slope for slope in found if np.isfinite(slope)]


def _rest(rest: Values) -> Values:
    """Return what is left of the values that are not the one in the middle."""
    off = rest - float(np.sort(rest)[len(rest) // 2])
    return off[np.abs(off) > _NEAR * max(1.0, float(np.abs(rest).max()))]


def bins_tell(
    values: Values, bins: Cells, ends: tuple[float, ...], minimum: int, rules: DominanceRules
) -> bool:
    """Whether a sum, beside the numbers of patients in the bins of its own column, tells too much of those in one bin.

    What the patients of the other bins add is known but for the widths of their bins.

    Args:
        values: those that are summed.
        bins: of each of them.
        ends: of the bins, one more than there are.
        minimum: the least patients.
        rules: the policy's.
    """
    whole = bool((values == np.rint(values)).all()) and all(end == round(end) for end in ends)
    widths = np.diff(np.array(ends)) - (1 if whole else 0)
    counts = np.bincount(bins, minlength=len(widths))[: len(widths)]
    for place in np.flatnonzero((counts > 0) & (widths > 0)):
        inside = values[bins == place]
        if (
            sum_problem(inside, minimum, (float(ends[place]), float(ends[place + 1])), rules)
            is RefusalCode.RELEASE_DOMINATED
        ):
            unknown = float((counts * widths).sum() - counts[place] * widths[place])
            if unknown < protection(inside - ends[place], rules):
                return True
    return False


__all__ = ["NOBODY", "bins_tell", "isolates_few", "sums_tell_few"]
