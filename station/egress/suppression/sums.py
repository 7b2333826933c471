"""Which lines of a table of sums to hide, so that no line that tells too much follows from the others and the sum of all.

Of hidden lines together the sum is known: it is the sum of all without the told ones. So they are held to the rules of one line
together ("aggregations of suppressed cells": Daalmans and de Waal, "An improved formulation of the disclosure auditing problem for
secondary cell suppression", 2010), and apart from that each is left as uncertain as its protection level asks.
"""

from collections.abc import Sequence

import numpy as np

from policies.policy import DominanceRules
from station.egress.suppression.lines import Mask
from station.egress.suppression.rules import Values, protection, sum_problem

Range = tuple[float, float] | None


def hide_sums(
    lines: Sequence[Values], withheld: Mask, minimum: int, bounds: Range, rules: DominanceRules
) -> Mask | None:
    """Return which lines to hide; None where nothing would be left.

    Args:
        lines: the values of each line's patients.
        withheld: lines whose number of patients is told nowhere.
        minimum: the least patients of a told line.
        bounds: the column's.
        rules: the policy's.
    """
    hidden = withheld | np.array([sum_problem(line, minimum, bounds, rules) is not None for line in lines])
    while not sums_are_safe(lines, hidden, minimum, bounds, rules):
        if bool(hidden.all()):
            return None
        hidden[min(np.flatnonzero(~hidden).tolist(), key=lambda line: len(lines[line]))] = True
    return None if bool(hidden.all()) else hidden


def sums_are_safe(
    lines: Sequence[Values], hidden: Mask, minimum: int, bounds: Range, rules: DominanceRules
) -> bool:
    """Whether what is told of sums, and the sum of all, tell nothing of few patients; the gate of this kind of table.

    1. No told line tells too much by itself.
    2. Neither do the hidden ones together.
    3. What the other hidden lines hold is room enough for each hidden line: above the least that a value can be, and below the most.
    """
    if any(
        sum_problem(line, minimum, bounds, rules) is not None
        for line, hide in zip(lines, hidden, strict=True)
        if not hide
    ):
        return False
    if not hidden.any():
        return True
    together = [line for line, hide in zip(lines, hidden, strict=True) if hide]
    if len(together) < 2 or sum_problem(np.concatenate(together), minimum, bounds, rules) is not None:
        return False
    sides = [[np.abs(line) for line in together]]
    if bounds is not None:
        sides = [[line - bounds[0] for line in together], [bounds[1] - line for line in together]]
    return all(
        sum(float(other.sum()) for place, other in enumerate(side) if place != number)
        >= protection(line, rules)
        for side in sides
        for number, line in enumerate(side)
    )
