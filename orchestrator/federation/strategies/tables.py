"""The strategy of tables: what may be said of all stations' patients, from what each station released.

1. A table is pooled where every station that released tables released it, in the declared shape: two pools that differ by one
   station would tell that station's.
2. Counts add up exactly. A cell that one station hides is hidden in the pool: what the others have of it is no number of patients
   of all, and beside a total it would give the hidden one away.
3. Sums and sums of squares add up by `math.fsum`, to the declared decimals; a line of which one station hides the patients has
   neither. Mean and sample variance follow from them by exact fractions, and are said where counts are not rounded or noisy.
4. Quantiles are no sums. Of the q-quantile of all patients it is sure that it lies between the smallest and the largest of the
   stations' own, so its line is the lowest lower edge and the highest upper edge, and no more.

Everything here is worked out from released tables alone: whatever a station's guard hides in its releases stays hidden in the pool.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from policies.aggregates import AggregateOutput
from policies.manifest import TrainManifest
from policies.policy import ReleaseRules
from policies.rows import HIDDEN

Table = list[list[float | int]]


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and sample variance of all patients of one line; the variance is None for one patient."""

    mean: float
    variance: float | None


@dataclass(frozen=True, slots=True)
class PooledTable:
    """One table over stations.

    Attributes:
        stations: whose patients are in it, by name.
        table: in the shape of a station's; of quantiles, bounds.
        moments: of sums, one per line; None where they cannot be said.
    """

    stations: tuple[str, ...]
    table: Table
    moments: tuple[Moments | None, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return it as a round's entry has it."""
        found: dict[str, object] = {"stations": list(self.stations), "table": self.table}
        if self.moments:
            found["moments"] = [
                None if each is None else {"mean": each.mean, "variance": each.variance}
                for each in self.moments
            ]
        return found


def pool_tables(
    tables: Mapping[str, Mapping[str, Table]], manifest: TrainManifest, rules: ReleaseRules
) -> dict[str, PooledTable]:
    """Return every table that can be pooled, by its key.

    Args:
        tables: of each station by name, what it released; checked by `replies.check_reply`.
        manifest: declares the tables.
        rules: the policy's: whether counts are told exactly.
    """
    exact = rules.count_rounding == 1 and rules.differential_privacy is None
    pooled: dict[str, PooledTable] = {}
    for item in manifest.outputs.aggregates:
        found = {name: tables[name][item.key] for name in sorted(tables) if item.key in tables[name]}
        shape = (len(manifest.aggregate_lines(item)), len(manifest.aggregate_columns(item)))
        if not found or len(found) < len(tables) or any(_shape(table) != shape for table in found.values()):
            continue
        lines = [list(zip(*parts, strict=True)) for parts in zip(*found.values(), strict=True)]
        table = [_pooled_line(item, line) for line in lines]
        moments = (
            tuple(moments_of(line) if exact else None for line in table) if item.measure == "sum" else ()
        )
        pooled[item.key] = PooledTable(tuple(found), table, moments)
    return pooled


def summed_tables(pooled: Mapping[str, PooledTable], manifest: TrainManifest) -> dict[str, Table]:
    """Return the tables that are sums, without what follows from them."""
    measures = {item.key: item.measure for item in manifest.outputs.aggregates}
    return {key: each.table for key, each in pooled.items() if measures[key] != "quantiles"}


def moments_of(line: Sequence[float | int]) -> Moments | None:
    """Return mean and sample variance of a line of patients, sum and sum of squares; None where it has no patient to tell of.

    >>> moments_of([4, 10.0, 30.0])
    Moments(mean=2.5, variance=1.6666666666666667)
    """
    patients, total, squares = line
    if patients == HIDDEN or patients < 1:
        return None
    count, summed = int(patients), Fraction(total)
    mean = summed / count
    if count == 1:
        return Moments(float(mean), None)
    # Sums are told rounded, so that nearly equal values can come out just below zero.
    variance = max(Fraction(0), (Fraction(squares) - summed * mean) / (count - 1))
    return Moments(float(mean), float(variance))


def _pooled_line(item: AggregateOutput, cells: Sequence[tuple[float | int, ...]]) -> list[float | int]:
    if item.measure == "quantiles":
        low, high = cells
        return [min(low), max(high)]
    if item.measure == "sum":
        patients, totals, squares = cells
        if HIDDEN in patients:
            return [HIDDEN, 0.0, 0.0]
        decimals = item.decimals or 0
        return [sum(patients), round(math.fsum(totals), decimals), round(math.fsum(squares), decimals)]
    return [HIDDEN if HIDDEN in each else sum(each) for each in cells]


def _shape(table: Table) -> tuple[int, int]:
    widths = {len(line) for line in table}
    return len(table), widths.pop() if len(widths) == 1 else -1
