"""Aggregates: the tables that a station makes of patients' rows, as a manifest declares them.

    count      patients per bin of a column, and by the categories of another one
    sum        patients, sum and sum of squares of a number: means and variances over stations follow exactly
    quantiles  between which declared edges a quantile lies

What contradicts itself is named here when the manifest is read. Pure.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Final, Literal

from pydantic import Field

from policies.documents import Sequence, StrictModel
from policies.rows import (
    ANSWERED,
    FAILURES,
    MAX_EDGES,
    MAX_PATIENTS,
    OUTCOME,
    ColumnName,
    Edge,
    RowColumn,
    RowSchema,
    bin_names,
)
from policies.splits import Split

MAX_CELLS: Final = 4096
MAX_SUMMED: Final = 1e9
"""The largest size of a number that is summed: its square over all patients still is an exact enough float."""
MAX_SUM_DECIMALS: Final = 6

PATIENTS: Final = "patients"
SUM_COLUMNS: Final = (PATIENTS, "sum", "sum_of_squares")
QUANTILE_COLUMNS: Final = ("lower", "upper")
ALL: Final = "all"
"""The one line of a sum that is not divided."""

Measure = Literal["count", "sum", "quantiles"]
Probability = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class AggregateOutput(StrictModel):
    """One table that the station makes of patients' rows: how many there are, what their values sum up to, or where quantiles lie."""

    key: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    column: ColumnName = Field(description=f"Of the rows, or {OUTCOME!r}: how it ended for a patient.")
    measure: Measure = Field(
        default="count",
        description="count: patients per bin of the column; sum: patients, sum and sum of squares of it; quantiles: the edges "
        "between which each of the declared probabilities lies.",
    )
    edges: Sequence[Edge] = Field(
        default=(),
        max_length=MAX_EDGES,
        description="Between the bins of a number, increasing; of counts and quantiles.",
    )
    by: ColumnName | None = Field(
        default=None,
        description="A second column, of categories: counts become a crosstab, sums one per category.",
    )
    probabilities: Sequence[Probability] = Field(
        default=(), max_length=32, description="Of quantiles, increasing: 0.5 is the median."
    )
    decimals: Annotated[int, Field(ge=0, le=MAX_SUM_DECIMALS)] | None = Field(
        default=None, description="To which a sum and a sum of squares are rounded."
    )
    split: Split
    minimum_cell_count: Annotated[int, Field(ge=1)] = 10


@dataclass(frozen=True, slots=True)
class ToldValues:
    """Numbers of one kind in an aggregate's table.

    Attributes:
        cells: how many numbers.
        values: how many different ones each can be, at most.
    """

    cells: int
    values: float


def problem_with(item: AggregateOutput, rows: RowSchema | None) -> str | None:
    """Return why an aggregate cannot be made of the rows, or None."""
    column = None if rows is None else rows.column(item.column)
    by = None if rows is None or item.by is None else rows.column(item.by)
    if item.column == OUTCOME:
        plain = not item.edges and item.by is None and item.measure == "count"
        return _extra(item) if plain else "counts outcomes, without edges and 'by'"
    if column is None:
        return "counts a column that the rows do not have"
    if item.by is not None and (by is None or by.type != "category" or item.by == item.column):
        return "is by a column that is no other category column of the rows"
    if problem := _extra(item):
        return problem
    if item.measure == "sum":
        return _problem_with_sum(item, column)
    if item.measure == "quantiles" and item.by is not None:
        return "asks for quantiles 'by' another column: declare a column of rows for each group"
    if item.measure == "quantiles" and column.type == "category":
        return "asks for quantiles of a category, which has no order"
    return _problem_with_bins(item, column, by)


def _extra(item: AggregateOutput) -> str | None:
    """Return what is declared that its measure has no use for, or lacks."""
    if (item.measure == "quantiles") != bool(item.probabilities):
        return "has probabilities for quantiles, and for nothing else"
    if any(low >= high for low, high in pairwise(item.probabilities)):
        return "has probabilities that do not increase"
    if (item.measure == "sum") != (item.decimals is not None):
        return "has decimals for a sum, and for nothing else"
    return None


def _problem_with_sum(item: AggregateOutput, column: RowColumn) -> str | None:
    if item.edges:
        return "has edges, and a sum has no bins: divide it with 'by'"
    if column.type == "category" or column.minimum is None or column.maximum is None:
        return "sums a category; only numbers are summed"
    if max(abs(column.minimum), abs(column.maximum)) > MAX_SUMMED:
        return f"sums a column whose range goes beyond {MAX_SUMMED:g}: choose a larger unit"
    return None


def _problem_with_bins(item: AggregateOutput, column: RowColumn, by: RowColumn | None) -> str | None:
    if (column.type == "category") == bool(item.edges):
        return "has edges for a number, and none for a category"
    ends = (column.minimum, *item.edges, column.maximum)
    rising = all(low is not None and high is not None and low < high for low, high in pairwise(ends))
    if item.edges and not rising:
        return "has edges that do not increase between the column's minimum and maximum"
    lines, cells = len(bin_names(column, item.edges)), 1 if by is None else len(bin_names(by, ()))
    return None if lines * cells <= MAX_CELLS else f"has more than {MAX_CELLS} cells"


def lines_of(item: AggregateOutput, rows: RowSchema | None, error_codes: tuple[str, ...]) -> tuple[str, ...]:
    """Return what the lines of an aggregate's table are, in order."""
    if item.column == OUTCOME:
        return (ANSWERED, *error_codes, *FAILURES)
    if item.measure == "quantiles":
        return tuple(f"{probability:.12g}" for probability in item.probabilities)
    named = item.by if item.measure == "sum" else item.column
    if named is None:
        return (ALL,)
    column = None if rows is None else rows.column(named)
    return () if column is None else bin_names(column, item.edges)


def columns_of(item: AggregateOutput, rows: RowSchema | None) -> tuple[str, ...]:
    """Return what the columns of an aggregate's table are, in order."""
    if item.measure == "sum":
        return SUM_COLUMNS
    if item.measure == "quantiles":
        return QUANTILE_COLUMNS
    by = None if rows is None or item.by is None else rows.column(item.by)
    return (PATIENTS,) if by is None else bin_names(by, ())


def ends_of(item: AggregateOutput, rows: RowSchema | None) -> tuple[float, ...]:
    """Return the edges of a number's bins with the ends of its range: all that a quantile's table can show."""
    column = None if rows is None else rows.column(item.column)
    if column is None or column.minimum is None or column.maximum is None:
        return ()
    return (column.minimum, *item.edges, column.maximum)


def sum_bounds(
    item: AggregateOutput, rows: RowSchema | None, patients: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return between what a sum and a sum of squares over so many patients lie."""
    column = None if rows is None else rows.column(item.column)
    low, high = (column.minimum or 0.0, column.maximum or 0.0) if column is not None else (0.0, 0.0)
    squares = (0.0 if low <= 0 <= high else min(low * low, high * high), max(low * low, high * high))
    return (patients * low, patients * high), (patients * squares[0], patients * squares[1])


def told_values(
    item: AggregateOutput,
    rows: RowSchema | None,
    error_codes: tuple[str, ...],
    count_rounding: int,
    patients: int = MAX_PATIENTS,
) -> tuple[ToldValues, ...]:
    """Return how many numbers an aggregate's table tells, and how many different ones each can be.

    A count is hidden or one of the multiples that are told; a sum's line is hidden or has two numbers of its decimals; a quantile lies
    between two of the edges.
    """
    lines = len(lines_of(item, rows, error_codes))
    counted = float(patients // count_rounding + 2)
    if item.measure == "count":
        return (ToldValues(lines * len(columns_of(item, rows)), counted),)
    if item.measure == "quantiles":
        bins = max(1, len(ends_of(item, rows)) - 1)
        return (ToldValues(lines, float(bins * (bins + 1) // 2)),)
    steps = 10.0 ** (item.decimals or 0)
    total, squares = sum_bounds(item, rows, patients)
    # From the least that nobody, to the most that all can have: fewer patients than all are possible.
    spans = (max(total[1], 0.0) - min(total[0], 0.0), squares[1])
    return (ToldValues(lines, counted), *(ToldValues(lines, span * steps + 2) for span in spans))
