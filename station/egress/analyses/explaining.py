"""Why a table was left out, in a sentence that says what to change: for the screen of whoever runs the dry run, and no other.

Nothing here decides anything, and nothing of it leaves: `station.egress.suppression` has decided. A sentence names columns and keys
that the manifest declares, and no number of patients but the minimum. Pure.
"""

from collections.abc import Sequence

from policies.aggregates import AggregateOutput
from policies.refusals import RefusalCode
from policies.rows import OUTCOME
from station.egress.analyses.exact import ExactTable
from station.egress.analyses.tally import Tally


def why_left_out(
    item: AggregateOutput, code: RefusalCode, tally: Tally, minimum: int, told: Sequence[ExactTable]
) -> str:
    """Return the likeliest reason, and what helps.

    Args:
        item: what was left out.
        code: by which rule.
        tally: the station's rows.
        minimum: the least patients of a told cell, as the policy and the item have it.
        told: the tables of which something is told.
    """
    few = f"1 to {max(minimum, 3) - 1} patients"
    if lacking := _lacking(item, tally, minimum):
        return (
            f"{few} lack {' and '.join(lacking)}: declare the rows `complete: true` (who lacks a column has no row then), "
            "or leave the column out"
        )
    if item.measure != "count" and (counts := _hiding_counts(item, told)):
        return f"{' and '.join(counts)}, a count of the same column, hides bins: merge its outer bins or drop one of the two"
    if code is RefusalCode.RELEASE_DOMINATED:
        return (
            "few patients make up most of a number of it, or it follows nearly from another table: "
            "use fewer lines or narrower bounds, or drop one of the two"
        )
    if item.measure == "quantiles":
        return f"fewer than {minimum} patients have a value: more patients are needed"
    if any(0 < count < minimum for count in tally.exact(item, minimum).counts.ravel().tolist()):
        return (
            f"cells hold {few}, and with what has to be hidden beside them nothing is left: "
            "use fewer and wider bins, or leave the second column out"
        )
    return f"beside the other tables it would tell of fewer than {minimum} patients: ask for fewer tables"


def _lacking(item: AggregateOutput, tally: Tally, minimum: int) -> list[str]:
    """Return the columns of an item that too few patients lack."""
    rows = tally.manifest.outputs.rows
    if rows is None or item.column == OUTCOME:
        return []
    if item.measure != "count":
        return [item.column] if any(0 < n < minimum for n in tally.without_value(item)) else []
    counts = tally.exact(item, minimum).counts
    bins = {item.column: int(counts[-1].sum())} | (
        {} if item.by is None else {item.by: int(counts[:, -1].sum())}
    )
    columns = {name: rows.column(name) for name in bins}
    return [
        name
        for name, count in bins.items()
        if (column := columns[name]) is not None and column.missing and 0 < count < minimum
    ]


def _hiding_counts(item: AggregateOutput, told: Sequence[ExactTable]) -> list[str]:
    return [
        table.key
        for table in told
        if table.measure == "count"
        and table.split is item.split
        and any(dimension.column == item.column for dimension in table.dimensions)
        and table.told is not None
        and not bool(table.told.all())
    ]
