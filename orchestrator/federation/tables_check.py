"""What the tables of a reply can be; how they are pooled is `strategies.tables`."""

import math
from itertools import pairwise
from typing import Final

from policies.aggregates import AggregateOutput, ends_of, sum_bounds
from policies.manifest import TrainManifest
from policies.policy import ReleaseRules
from policies.refusals import RefusalCode
from policies.rows import HIDDEN, MAX_PATIENTS

Table = list[list[float | int]]

_ROUNDED: Final = 500
"""By so many patients at most a policy rounds a count down (`release.count_rounding`)."""


def table_problem(
    table: Table, item: AggregateOutput, manifest: TrainManifest, rules: ReleaseRules
) -> RefusalCode | None:
    """Return what is wrong with a table; None where a guard could have made it.

    1. It has the declared lines and columns.
    2. Counts are whole numbers of patients, rounded as the policy says; without noise none is told that is too small.
    3. Sums are what so many patients can have, to their decimals; quantiles are edges in order.
    """
    width = len(manifest.aggregate_columns(item))
    if len(table) != len(manifest.aggregate_lines(item)) or any(len(line) != width for line in table):
        return RefusalCode.RELEASE_TABLE_SHAPE
    if item.measure == "quantiles":
        good = _are_quantiles(table, item, manifest)
        return None if good else RefusalCode.RELEASE_TABLE_SHAPE
    counts = (
        [line[0] for line in table] if item.measure == "sum" else [cell for line in table for cell in line]
    )
    if not all(_is_count(count) for count in counts):
        return RefusalCode.RELEASE_TABLE_SHAPE
    if item.measure == "sum" and not _are_sums(table, item, manifest):
        return RefusalCode.RELEASE_TABLE_SHAPE
    if rules.differential_privacy is not None:
        return None
    if any(count > 0 and count % rules.count_rounding for count in counts):
        return RefusalCode.RELEASE_TABLE_SHAPE
    smallest = _rounded(max(rules.minimum_cell_count, item.minimum_cell_count), rules.count_rounding)
    return RefusalCode.RELEASE_CELL_TOO_SMALL if any(0 < count < smallest for count in counts) else None


def _is_count(value: float) -> bool:
    return type(value) is int and HIDDEN <= value <= MAX_PATIENTS


def _are_sums(table: Table, item: AggregateOutput, manifest: TrainManifest) -> bool:
    decimals = item.decimals or 0
    for patients, total, squares in table:
        if not all(_has_decimals(each, decimals) for each in (total, squares)):
            return False
        if patients == HIDDEN:
            if total != 0 or squares != 0:
                return False
            continue
        # Patients may be rounded by the policy: a few more can be in the sum than are told.
        most = sum_bounds(item, manifest.outputs.rows, int(patients) + _ROUNDED)
        slack = 0.5 / 10**decimals
        least = [min(0.0, low) for low, _ in most]
        if not all(
            low - slack <= each <= max(0.0, high) + slack
            for each, low, (_, high) in zip((total, squares), least, most, strict=True)
        ):
            return False
    return True


def _has_decimals(value: float, decimals: int) -> bool:
    # A whole number is always finite, and may be too large to ask whether it is.
    finite = type(value) is int or (type(value) is float and math.isfinite(value))
    return finite and round(value, decimals) == value


def _are_quantiles(table: Table, item: AggregateOutput, manifest: TrainManifest) -> bool:
    """Whether each line is two of the declared edges in order, and the lines do not fall."""
    ends = ends_of(item, manifest.outputs.rows)
    if not all(low in ends and high in ends and low < high for low, high in table):
        return False
    return all(one[0] <= other[0] and one[1] <= other[1] for one, other in pairwise(table))


def _rounded(count: int, base: int) -> int:
    return (count + base // 2) // base * base
