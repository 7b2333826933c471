"""Noise on metrics and tables: each becomes integers on a grid, gets discrete Gaussian noise, and leaves as what people read.

Sensitivities are those of replacing one patient by another (L2, in steps of the grid):

    metric                  its whole declared range: the train may state anything, by one patient
    counts, histogram       sqrt(2): the one who leaves takes one from a cell, the one who comes adds one to another
    sum over lines          sqrt(2) times the largest size a value can have, or the range where that is more
    sum of squares          sqrt(2) times the largest square

The second to last hold where the station alone decides which cell a patient is in by that patient's own row, as `policies.privacy.
unbounded_outputs` says. Whoever has no cell counts nowhere, and coming from or going to nowhere moves less.

Nothing is suppressed. A small cell with noise tells no more of a patient than a large one: by how much any answer becomes more likely with
one patient replaced is bounded for all answers, whatever the cell holds and whatever else is known. Hiding the small ones would by itself tell where
they are. For the same reason an optional metric that the train leaves out is answered as its declared minimum, with noise.

What is done after the noise (rounding, bounds, quantiles of a noisy histogram) depends on noisy numbers alone and costs nothing. Counts
below zero are told as zero: -1 stands for a hidden cell in tables. So empty cells are told as 0.4 standard deviations on average; whoever adds up many
cells that are nearly empty should know.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.aggregates import AggregateOutput
from policies.outputs import MetricOutput
from policies.privacy import Query, QueryKind
from policies.rows import MAX_PATIENTS
from station.egress.analyses.exact import ExactTable
from station.egress.analyses.quantiles import quantile_intervals
from station.egress.privacy.drawing import ChargedNoise

Number = int | float
Table = tuple[tuple[Number, ...], ...]

FINEST_STEPS: Final = 1 << 20
"""Into so many steps a range is divided at most: a millionth of what the noise at least spreads over."""
COUNTS_SENSITIVITY_SQUARED: Final = 2


def noisy_metric(noise: ChargedNoise, metric: MetricOutput, stated: Number | None) -> Number:
    """Return a metric with noise, within its range and on the grid of its decimals.

    Args:
        noise: charged for `metric:<key>`.
        metric: as declared.
        stated: by the train, finite; None where an optional metric is absent.

    Raises:
        StateError: it was not charged.
    """
    decimals = metric.decimals if metric.type == "float" else 0
    low, high = Fraction(metric.minimum), Fraction(metric.maximum)
    steps = metric_steps(metric)
    value = low if stated is None else min(max(Fraction(stated), low), high)
    exact = round((value - low) / (high - low) * steps)
    drawn = int(noise.sampler(Query(QueryKind.METRIC, metric.key), steps**2).draw(1)[0])
    told = float(min(max(low + Fraction(exact + drawn, steps) * (high - low), low), high))
    inside = min(max(round(told, decimals), metric.minimum), metric.maximum) + 0.0
    return round(inside) if metric.type == "int" else inside


def metric_steps(metric: MetricOutput) -> int:
    """Return into how many steps a metric's range is divided: its sensitivity on the grid."""
    decimals = metric.decimals if metric.type == "float" else 0
    span = Fraction(metric.maximum) - Fraction(metric.minimum)
    return min(max(1, math.ceil(span * int(10**decimals))), FINEST_STEPS)


def noisy_table(
    noise: ChargedNoise, item: AggregateOutput, table: ExactTable, ends: Sequence[float] = ()
) -> Table:
    """Return a table with noise in every cell.

    Args:
        noise: charged for each of `policies.privacy.costs.queries_of_aggregate`.
        item: as declared.
        table: what the station counted.
        ends: of quantiles, the edges of the bins with the ends of the range.

    Raises:
        StateError: it was not charged.
    """
    match item.measure:
        case "count":
            counts = _noisy_counts(noise, Query(QueryKind.COUNT, item.key), table)
            return tuple(tuple(line) for line in counts.tolist())
        case "quantiles":
            counts = _noisy_counts(noise, Query(QueryKind.QUANTILES, item.key), table)
            found = quantile_intervals(
                counts[:, 0].tolist(), ends, item.probabilities, item.minimum_cell_count
            )
            return found or tuple((ends[0], ends[-1]) for _ in item.probabilities)
        case "sum":
            return _noisy_sums(noise, item, table)


def _noisy_counts(noise: ChargedNoise, query: Query, table: ExactTable) -> NDArray[np.int64]:
    counts = table.counts
    drawn = noise.sampler(query, COUNTS_SENSITIVITY_SQUARED).draw(counts.size)
    noisy: NDArray[np.int64] = np.clip(counts + drawn.reshape(counts.shape), 0, MAX_PATIENTS)
    return noisy


def _noisy_sums(noise: ChargedNoise, item: AggregateOutput, table: ExactTable) -> Table:
    patients = _noisy_counts(noise, Query(QueryKind.SUM_PATIENTS, item.key), table).reshape(-1)
    decimals = item.decimals or 0
    low, high = table.bounds or (0.0, 0.0)
    values = np.zeros(len(table.cells)) if table.values is None else table.values
    plain = SummedGrid.of(low, high, decimals)
    square = SummedGrid.of(*_squared(low, high), decimals)
    sums = plain.noisy(noise, Query(QueryKind.SUM, item.key), values, table)
    squares = square.noisy(noise, Query(QueryKind.SUM_OF_SQUARES, item.key), values * values, table)
    return tuple(
        (count, _within(total, count, plain, decimals), _within(of_squares, count, square, decimals))
        for count, total, of_squares in zip(patients.tolist(), sums, squares, strict=True)
    )


def _squared(low: float, high: float) -> tuple[float, float]:
    ends = (low * low, high * high)
    return (0.0 if low <= 0.0 <= high else min(ends), max(ends))


def _within(value: Fraction, count: int, grid: "SummedGrid", decimals: int) -> float:
    """Return a sum that so many patients can have: what is impossible would be refused where it arrives."""
    inside = min(max(float(value), count * grid.low), count * grid.high)
    return round(inside, decimals) + 0.0  # no minus zero


class SummedGrid:
    """The grid of one sum: whole steps, of which each patient adds no more than the declared range allows.

    Attributes:
        low: the least a patient adds.
        high: the most.
        step: of the grid: that of the declared decimals, or a coarser one.
        least: `low` in steps, rounded down.
        most: `high` in steps, rounded up.
    """

    def __init__(self, low: float, high: float, step: Fraction) -> None:
        self.low, self.high, self.step = low, high, step
        self.least = math.floor(Fraction(low) / step)
        self.most = math.ceil(Fraction(high) / step)

    @classmethod
    def of(cls, low: float, high: float, decimals: int) -> "SummedGrid":
        """Return the grid of a range, no finer than `FINEST_STEPS` to the largest size."""
        largest = Fraction(max(abs(low), abs(high)))
        return cls(low, high, max(Fraction(1, 10**decimals), largest / FINEST_STEPS))

    @property
    def sensitivity_squared(self) -> int:
        """In steps: a patient who moves changes two lines by a value each, one who stays changes one by the range."""
        return max(2 * max(abs(self.least), abs(self.most)) ** 2, (self.most - self.least) ** 2)

    def whole(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return what each patient adds, in steps: bounded as a whole number, whatever the division rounds to."""
        return np.clip(np.rint(values / float(self.step)), self.least, self.most).astype(np.int64)

    def noisy(
        self, noise: ChargedNoise, query: Query, values: NDArray[np.float64], table: ExactTable
    ) -> list[Fraction]:
        """Return the noisy sum of each line."""
        lines = table.shape[0] * table.shape[1]
        whole = self.whole(values)
        sums = [int(whole[table.cells == line].sum()) for line in range(lines)]
        drawn = noise.sampler(query, max(1, self.sensitivity_squared)).draw(lines).tolist()
        return [(total + extra) * self.step for total, extra in zip(sums, drawn, strict=True)]
