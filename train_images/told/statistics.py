"""Who the patients are, from the tables that stations counted: counts and shares, means and variances, quantiles, over all stations.

    count      patients per cell, added up; where a station hides a cell, what the others tell is the least there are; and of a number's
               bins by a second column, in which bin the quartiles of each group lie, where no bin of that group is hidden
    sum        mean and sample variance from patients, sum and sum of squares, by exact fractions of the told decimals
    quantiles  between the lowest and the highest edge that stations tell; or, where a count of the same bins is told in full, the one
               bin that holds the quantile of all patients

Nothing here is an estimate but the interval of a mean, and no number is told that does not follow from the result's own. Pure.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Final

from train_images.told.intervals import Z
from train_images.told.reading import Line, Table, ToldResult, ToldTable


@dataclass(frozen=True, slots=True)
class Mean:
    """A number over the patients of one line.

    Attributes:
        patients: who have a value; None where that is hidden.
        mean, variance: the sample variance, with patients - 1; None where they do not follow.
        standard_deviation: its root.
        low, high: the 95 % interval of the mean, by the normal approximation.
    """

    line: str
    patients: int | None
    mean: float | None = None
    variance: float | None = None
    standard_deviation: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Quantile:
    """Between which two edges a quantile lies."""

    line: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Count:
    """A cell of counts: how many patients, or at least how many where a station hides its part."""

    line: str
    column: str
    patients: float | None
    at_least: float


@dataclass(frozen=True, slots=True)
class GroupQuartile:
    """Between which two edges a quartile lies among the patients of one category."""

    column: str
    line: str
    low: float
    high: float


Cells = tuple[Mean, ...] | tuple[Quantile, ...] | tuple[Count, ...]


@dataclass(frozen=True, slots=True)
class TableStatistics:
    """What one table says of all stations' patients, and of each station's where single ones are told; quartiles are of all stations'."""

    table: str
    measure: str
    column: str
    by: str | None
    of: int
    pooled: Cells
    stations: Mapping[str, Cells]
    quartiles: tuple[GroupQuartile, ...] = ()


_QUARTILES: Final = ("0.25", "0.5", "0.75")


def statistics_of(told: ToldResult) -> tuple[TableStatistics, ...]:
    """Return what each table says."""
    return tuple(_of_table(table, told) for table in told.tables)


def moments(patients: int, total: Fraction, squares: Fraction) -> tuple[float, float | None] | None:
    """Return mean and sample variance from patients, sum and sum of squares; None of nobody, no variance of one.

    (sum of squares - sum^2 / n) / (n - 1) in whole fractions, rounded once: there is no cancellation.

    >>> moments(4, Fraction(10), Fraction(30))
    (2.5, 1.6666666666666667)
    """
    if patients < 1:
        return None
    mean = total / patients
    if patients == 1:
        return float(mean), None
    return float(mean), float(max(Fraction(0), (squares - total * mean) / (patients - 1)))


def _of_table(table: ToldTable, told: ToldResult) -> TableStatistics:
    stations = {name: _cells(table, [cells], told) for name, cells in table.stations.items()}
    parts = list(table.stations.values()) or ([] if table.pooled is None else [table.pooled])
    of = len(table.stations) or table.of
    pooled: Cells = _cells(table, parts, told) if parts else ()
    quartiles = tuple(_group_quartiles(table, parts)) if table.by is not None and told.exact else ()
    return TableStatistics(table.key, table.measure, table.column, table.by, of, pooled, stations, quartiles)


def _group_quartiles(table: ToldTable, parts: Sequence[Table]) -> Iterator[GroupQuartile]:
    """Yield the quartiles of each category that is told in full; whoever lacks the number counts in none."""
    if table.measure != "count" or not table.ends or not parts:
        return
    bins = len(table.ends) - 1
    for at, column in enumerate(table.columns):
        counts = [_added(part[place][at] for part in parts) for place in range(bins)]
        known = [int(each) for each in counts if each is not None]
        if len(known) < bins or not sum(known):
            continue
        for line in _QUARTILES:
            place = _bin_of(line, known)
            yield GroupQuartile(column, line, table.ends[place], table.ends[place + 1])


def _cells(table: ToldTable, parts: Sequence[Table], told: ToldResult) -> Cells:
    lines = [list(zip(*found, strict=True)) for found in zip(*parts, strict=True)]
    if table.measure == "sum":
        return tuple(_mean(name, line, told) for name, line in zip(table.lines, lines, strict=True))
    if table.measure == "quantiles":
        counts = _counts_of(table, parts, told)
        return tuple(
            _quantile(name, line, table, counts) for name, line in zip(table.lines, lines, strict=True)
        )
    return tuple(
        Count(name, column, _added(cell), sum(each or 0 for each in cell))
        for name, line in zip(table.lines, lines, strict=True)
        for column, cell in zip(table.columns, line, strict=True)
    )


def _added(cells: Iterable[float | None]) -> float | None:
    known = list(cells)
    return None if None in known else sum(each or 0 for each in known)


def _mean(name: str, line: Sequence[Line], told: ToldResult) -> Mean:
    patients = _added(line[0])
    if patients is None or any(None in part for part in line[1:]):
        return Mean(name, None)
    count = int(patients)
    # Of rounded or noisy counts no mean follows: both its sum and its number would have to be of the same patients.
    if not told.exact:
        return Mean(name, count)
    # Told as decimals, and taken as those.
    total, squares = (sum(Fraction(repr(each)) for each in part if each is not None) for part in line[1:])
    found = moments(count, Fraction(total), Fraction(squares))
    mean, variance = found or (None, None)
    if mean is None or variance is None:
        return Mean(name, count, mean)
    half = Z * math.sqrt(variance / count)
    return Mean(name, count, mean, variance, math.sqrt(variance), mean - half, mean + half)


def _quantile(name: str, line: Sequence[Line], table: ToldTable, counts: Sequence[int] | None) -> Quantile:
    lows, highs = line
    low, high = min(each or 0.0 for each in lows), max(each or 0.0 for each in highs)
    if counts is None or sum(counts) == 0:
        return Quantile(name, low, high)
    place = _bin_of(name, counts)
    return Quantile(name, table.ends[place], table.ends[place + 1])


def _bin_of(probability: str, counts: Sequence[int]) -> int:
    """Return the bin that holds a quantile: the inverse of the empirical distribution function. Somebody is in one of the bins."""
    rank = math.ceil(Fraction(probability) * sum(counts))
    return next(place for place, reached in enumerate(accumulate(counts)) if reached >= rank)


def _counts_of(table: ToldTable, parts: Sequence[Table], told: ToldResult) -> list[int] | None:
    """Return how many patients are in each bin of a quantile's column, where a count of the same bins tells that of the same stations."""
    if not told.exact:
        return None
    for other in told.tables:
        if (
            other.measure != "count"
            or other.column != table.column
            or other.ends != table.ends
            or other.by is not None
        ):
            continue
        found = _same(table, other, parts)
        if found is None:
            continue
        bins = [_added(part[place][0] for part in found) for place in range(len(table.ends) - 1)]
        if None not in bins:
            return [int(each or 0) for each in bins]
    return None


def _same(table: ToldTable, other: ToldTable, parts: Sequence[Table]) -> list[Table] | None:
    """Return another table's parts of the same stations."""
    if table.pooled is not None and not table.stations:
        return None if other.pooled is None or other.of != table.of else [other.pooled]
    names = [name for name, cells in table.stations.items() if any(cells is part for part in parts)]
    found = [other.stations[name] for name in names if name in other.stations]
    return found if found and len(found) == len(names) else None
