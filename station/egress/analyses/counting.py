"""From the station's rows to tables that may leave: exact tables first, then one branch of two.

    rows -> exact tables -> [hidden where too few, rounded]          without differential privacy
                         -> [noised: every cell, nothing hidden]     with it

Pure. Which patients are in which cell stays in the exact tables, for whoever compares them with earlier ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.aggregates import AggregateOutput, ends_of
from policies.refusals import RefusalCode
from policies.rows import HIDDEN, OUTCOME
from station.egress.analyses.exact import ExactTable
from station.egress.analyses.quantiles import quantile_intervals
from station.egress.analyses.tally import Tally
from station.egress.contract import ReleaseContract
from station.egress.suppression import Hidden, HidingRules, hide

Number = int | float
Table = tuple[tuple[Number, ...], ...]

_TOO_SMALL: Final = RefusalCode.RELEASE_CELL_TOO_SMALL
_COUNTS_GIVEN: Final = 3
"""Of so many values the number of patients with each follows from a sum's three numbers, also where one of them is rounded."""
_NOTHING: Final = Hidden(None, _TOO_SMALL)


@dataclass(slots=True)
class Counted:
    """What became of aggregates.

    Attributes:
        tables: that may leave.
        exact: what they were made of; stays here.
        left_out: the others, with the rule.
    """

    tables: dict[str, Table] = field(default_factory=dict)
    exact: tuple[ExactTable, ...] = ()
    left_out: dict[str, RefusalCode] = field(default_factory=dict)


def count_tables(contract: ReleaseContract, tally: Tally, items: Sequence[AggregateOutput]) -> Counted:
    """Make the tables of some aggregates.

    1. Each becomes an exact table. How it ended is told by the codes that the policy grants.
    2. A sum or quantiles of a column that too few patients lack is left out: beside a count it would tell of them.
    3. Cells that are too small are hidden, with what would tell them; a table of which nothing is left is left out.
    4. What is left is rounded, and quantiles become edges. A sum that would undo the rounding of its counts is left out.

    Args:
        contract: what may leave.
        tally: the station's rows.
        items: permitted, each on enough patients.
    """
    counted = Counted()
    exact: list[ExactTable] = []
    for item in items:
        minimum = max(contract.minimum_cell_count, item.minimum_cell_count)
        table = tally.exact(item, minimum, contract.error_codes)
        few = item.measure != "count" and any(0 < n < minimum for n in tally.without_value(item))
        if few:
            counted.left_out[item.key] = _TOO_SMALL
        else:
            exact.append(table)
    # Together: what one hides, another may not tell. Quantiles beside a count that hides anything are left out.
    hidden = hide(exact, HidingRules(contract.minimum_cell_count, contract.dominance))
    told = []
    for table in exact:
        item = next(item for item in items if item.key == table.key)
        found = hidden.get(table.key, _NOTHING)
        made = None if found.told is None else _told(table, ~found.told, item, contract, tally)
        if made is None:
            counted.left_out[item.key] = found.code or (
                RefusalCode.RELEASE_DOMINATED if table.measure == "sum" else _TOO_SMALL
            )
        else:
            counted.tables[item.key] = _all_lines(made, item, contract, tally)
            told.append(replace(table, told=found.told))
    counted.exact = tuple(told)
    return counted


def _told(
    table: ExactTable,
    mask: NDArray[np.bool_],
    item: AggregateOutput,
    contract: ReleaseContract,
    tally: Tally,
) -> Table | None:
    if table.measure == "quantiles":
        bins = [int(line[0]) for line in table.counts]
        ends = ends_of(item, tally.manifest.outputs.rows)
        return quantile_intervals(bins, ends, table.probabilities, table.minimum)
    base = contract.count_rounding
    counts, hides = table.counts.tolist(), mask.tolist()
    if table.measure == "count":
        return tuple(
            tuple(
                HIDDEN if hidden else rounded_count(int(cell), base)
                for cell, hidden in zip(*line, strict=True)
            )
            for line in zip(counts, hides, strict=True)
        )
    if base > 1 and _gives_counts(table, mask):
        return None
    lines: list[tuple[Number, ...]] = []
    for number, ((count,), (hidden,)) in enumerate(zip(counts, hides, strict=True)):
        if hidden:
            lines.append((HIDDEN, 0.0, 0.0))
            continue
        total, squares = sums_of(table, number)
        decimals = item.decimals or 0
        # No minus zero: its sign would say from which side.
        lines.append(
            (rounded_count(int(count), base), round(total, decimals) + 0.0, round(squares, decimals) + 0.0)
        )
    return tuple(lines)


def _gives_counts(table: ExactTable, mask: NDArray[np.bool_]) -> bool:
    """Whether a told line has so few values that sum and sum of squares give the numbers of patients that are to be rounded."""
    values = np.zeros(len(table.cells)) if table.values is None else table.values
    told = np.flatnonzero(~mask.ravel() & (table.counts.ravel() > 0))
    return any(len(np.unique(values[table.cells == line])) <= _COUNTS_GIVEN for line in told.tolist())


def sums_of(table: ExactTable, line: int) -> tuple[float, float]:
    """Return the sum and the sum of squares of a sum's line; exactly rounded, so in whatever order patients come."""
    values = [] if table.values is None else table.values[table.cells == line].tolist()
    return math.fsum(values), math.fsum(value * value for value in values)


def rounded_count(count: int, base: int) -> int:
    """Round a count to the nearest multiple, halves up.

    >>> [rounded_count(count, 5) for count in (12, 17, 0)]
    [10, 15, 0]
    """
    return (count + base // 2) // base * base


def _all_lines(table: Table, item: AggregateOutput, contract: ReleaseContract, tally: Tally) -> Table:
    """Put back the lines of error codes that the policy does not grant: always zero, as everybody knows."""
    if item.column != OUTCOME:
        return table
    told = dict(zip(tally.outcome_lines(contract.error_codes), table, strict=True))
    return tuple(told.get(name, (0,)) for name in tally.manifest.aggregate_lines(item))
