"""What two releases tell beside each other: whether anything that follows from both concerns fewer patients than the minimum.

Pure. Patients are numbers here (`station.egress.differencing.tables` says whose), sorted. Columns have no names: who wrote a train
chose them, and may have given one content two names, so what is compared is how patients lie in the cells and nothing else.

1. **Populations.** The patients of the one who are not in the other, and the other way round, are none or at least the minimum:
   a figure of all but one, beside a figure of all, tells the one's. Also where many came meanwhile: they only add, so a count
   that went down tells where the one was. Populations with nobody in common leave nothing to subtract.
2. **Cells.** No combination of the told numbers of both tables depends on fewer patients than the minimum (`cuts`): other edges,
   merged categories, a cell less, and unions of any of them.
3. **Values.** Of two sums, the values are the same, up to scale and offset, for all patients or are not for at least the minimum: a
   sum over values that differ for one patient is that patient's. Of the same values, a patient with one that many have adds nothing
   new, so the cut is asked of the others too, and what cells differ by is held to the rules of a sum (`suppression.shares`).
4. **Values by cells.** The values summed in the one do not follow, but for fewer patients than the minimum, from the cells in which
   the other counts them.

What a metric is computed by is the train's: it tells one number of all of its patients, and the first two rules are what can be
held of it. Noise is not looked at: where a policy has it, its accountant answers for every number, also beside others.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from policies.policy import DominanceRules
from station.egress.differencing.cuts import NOBODY, fewest_isolated
from station.egress.suppression.shares import counts_tell, line_between, same_values_tell

Measure = Literal["count", "sum", "quantiles", "metric"]

_SAME: Final = 1e-9
_EVERY_PAIR: Final = 40
_RULES: Final = DominanceRules()
"""Two releases may be under two policies: what their sums differ by is held to the rules that a policy has by itself."""


@dataclass(frozen=True, slots=True)
class Told:
    """One table or metric that left, or is about to: of whom it tells numbers.

    Attributes:
        what: its declared key, for the hospital's own screen.
        measure: what is told of each cell.
        minimum: the fewest patients that anything it tells may depend on.
        patients: all that it was counted over, as sorted numbers. Shape (patients,).
        parts: ways in which it divides them into cells of which a number is told, `NOBODY` where none is. Each of shape (patients,).
        values: what each adds to a sum; None where nothing is summed. Shape (patients,).
    """

    what: str
    measure: Measure
    minimum: int
    patients: NDArray[np.int64]
    parts: tuple[NDArray[np.int32], ...]
    values: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What of a release may be told beside the earlier ones.

    Attributes:
        told: what may.
        left_out: what may not, by key, and why.
        seen: how far the records were looked at.
    """

    told: tuple[Told, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    seen: int = 0


def metric(what: str, patients: NDArray[np.int64], minimum: int) -> Told:
    """Return what a metric tells: one number of all of its patients."""
    return Told(what, "metric", minimum, patients, (np.zeros(len(patients), np.int32),))


def problem_between(one: Told, other: Told) -> str | None:
    """Return in words what would tell of too few patients, or None."""
    minimum = max(one.minimum, other.minimum)
    if not len(np.intersect1d(one.patients, other.patients, assume_unique=True)):
        return None
    if _few_apart(one.patients, other.patients, minimum):
        return f"its patients are those of {other.what}, but for fewer than {minimum}"
    if _cut(one, other):
        return f"beside {other.what} it tells of fewer than {minimum} patients"
    if _by_cells(one, other) or _by_cells(other, one):
        return f"its values follow from {other.what}, but for fewer than {minimum} patients"
    if one.values is None or other.values is None:
        return None
    return _values_problem(one, other, one.values, other.values)


def _few_apart(one: NDArray[np.int64], other: NDArray[np.int64], minimum: int) -> bool:
    both = len(np.intersect1d(one, other, assume_unique=True))
    return 0 < len(one) - both < minimum or 0 < len(other) - both < minimum


def _cut(one: Told, other: Told) -> bool:
    """Whether a combination of both isolates too few."""
    everyone = np.union1d(one.patients, other.patients)
    left = [_spread(part, one.patients, everyone) for part in one.parts]
    right = [_spread(part, other.patients, everyone) for part in other.parts]
    # A cell that a laxer policy told, or a metric of few, is a cut too, of one table alone: that was its own rules' to judge.
    minimum = min(max(one.minimum, other.minimum), *map(_smallest, (*one.parts, *other.parts)))
    return any(fewest_isolated(a, b, minimum) is not None for a in left for b in right)


def _by_cells(sums: Told, other: Told) -> bool:
    """Whether the values of a sum follow, but for few, from the cells of which the other tells numbers of patients."""
    if sums.values is None or other.measure not in {"count", "sum"}:
        return False
    summed = _summed(sums)
    everyone = np.union1d(sums.patients, other.patients)
    places = np.searchsorted(everyone, sums.patients[summed])
    minimum = max(sums.minimum, other.minimum)
    return any(
        counts_tell(sums.values[summed], _spread(part, other.patients, everyone)[places], minimum, _RULES)
        for part in other.parts
    )


def _smallest(part: NDArray[np.int32]) -> int:
    told = np.bincount(part[part != NOBODY])
    return int(told[told > 0].min(initial=len(part) + 1))


def _spread(
    part: NDArray[np.int32], patients: NDArray[np.int64], everyone: NDArray[np.int64]
) -> NDArray[np.int32]:
    spread = np.full(len(everyone), NOBODY, np.int32)
    spread[np.searchsorted(everyone, patients)] = part
    return spread


def _values_problem(
    one: Told, other: Told, mine: NDArray[np.float64], theirs: NDArray[np.float64]
) -> str | None:
    minimum = max(one.minimum, other.minimum)
    _, here, there = np.intersect1d(one.patients, other.patients, assume_unique=True, return_indices=True)
    told = _summed(one)[here] & _summed(other)[there]
    x, y = mine[here][told], theirs[there][told]
    # A sum of squares is told beside each sum: it is a sum of other values.
    if any(off_the_line(left, right, minimum) for left in (x, x * x) for right in (y, y * y)):
        return f"its values are those of {other.what}, but for fewer than {minimum} patients"
    line = line_between(x, y) if len(x) >= minimum else None
    if line is not None and _shares(one, other, line):
        return f"beside {other.what} it tells what fewer than {minimum} patients add"
    return None


def _shares(one: Told, other: Told, line: tuple[float, float]) -> bool:
    """Whether sums of the same values, up to scale and offset, tell what too few add."""
    slope, offset = line
    everyone = np.union1d(one.patients, other.patients)
    values = np.zeros(len(everyone))
    if other.values is not None and one.values is not None:
        values[np.searchsorted(everyone, other.patients)] = (other.values - offset) / slope
        mine = _summed(one)
        values[np.searchsorted(everyone, one.patients[mine])] = one.values[mine]
    minimum = max(one.minimum, other.minimum)
    return any(
        same_values_tell(
            _spread(left, one.patients, everyone), _spread(right, other.patients, everyone), values, minimum, _RULES,
            zero=-offset / slope,
        )
        for left in one.parts
        for right in other.parts
    )  # fmt: skip


def _summed(told: Told) -> NDArray[np.bool_]:
    counted = np.zeros(len(told.patients), np.bool_)
    for part in told.parts:
        counted |= part != NOBODY
    return counted


def off_the_line(x: NDArray[np.float64], y: NDArray[np.float64], minimum: int) -> int | None:
    """Return for how few patients y is not one and the same a + b * x; None where that is `minimum` or more, or cannot be told.

    Of more disjoint pairs than the minimum, one holds no patient who is off, so the line through one of the pairs is the line. That
    it holds for fewer patients than the minimum is chance, of which nobody could make anything.

    >>> x = np.arange(40.0)
    >>> y = 3 * x + 1
    >>> y[7] += 1
    >>> off_the_line(x, y, 10)
    1
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    best: int | None = None
    for low, high in _pairs(x, minimum):
        slope = float((y[high] - y[low]) / (x[high] - x[low]))
        if slope == 0 or not math.isfinite(slope):
            continue
        gap = np.abs(y[low] + slope * (x - x[low]) - y)
        off = int(np.count_nonzero(gap > _SAME * max(1.0, float(np.abs(y).max()))))
        best = off if best is None else min(best, off)
    return best if best is not None and best < minimum <= len(x) - best else None


def _pairs(x: NDArray[np.float64], minimum: int) -> Iterable[tuple[int, int]]:
    """Yield places of sorted values that differ: every pair of few, more disjoint ones than can hold somebody who is off of many."""
    if len(x) <= _EVERY_PAIR:
        return [pair for pair in combinations(range(len(x)), 2) if x[pair[0]] != x[pair[1]]]
    half = len(x) // 2
    lows = np.flatnonzero(x[:half] != x[half : 2 * half])
    step = max(1, len(lows) // (4 * minimum))
    return [(low, low + half) for low in lows[::step].tolist()]
