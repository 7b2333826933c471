"""What a release is about to tell, in numbers of patients: read from the release and from what the station itself counted for it.

Pure but for the numbers, which `of` gives. Only what leaves is read: a table that another rule left out tells nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.rows import HIDDEN
from policies.splits import Split
from station.egress.analyses.exact import NOWHERE, ExactTable
from station.egress.contract import ReleaseContract
from station.egress.differencing.comparing import Told, metric
from station.egress.differencing.cuts import NOBODY
from station.egress.release import Release

Numbers = Callable[[Iterable[str]], NDArray[np.int64]]
"""Gives each pseudonym its number, in the same order."""


def told_by(
    release: Release,
    contract: ReleaseContract,
    patients: Mapping[Split, frozenset[str]],
    of: Numbers,
) -> tuple[Told, ...]:
    """Return what a release tells, each table and metric by itself.

    Args:
        release: from the guard, every other rule asked.
        contract: under which it was made.
        patients: of the frozen cohort, per split: whom a metric is of.
        of: gives numbers to pseudonyms.
    """
    declared = {item.key: item for item in contract.metrics if item.stage == release.stage}
    told = [
        metric(key, np.sort(of(patients.get(declared[key].split, frozenset()))), contract.minimum_cell_count)
        for key in sorted(release.metrics)
        if key in declared
    ]
    return (*told, *(_table(exact, release.tables[exact.key], of) for exact in release.counted if exact.key in release.tables))  # fmt: skip


def _table(exact: ExactTable, table: Any, of: Numbers) -> Told:  # noqa: ANN401 - of whole or decimal numbers
    numbers = of(exact.patients)
    order = np.argsort(numbers, kind="stable")
    cells = exact.cells[order].astype(np.int32)
    values = None if exact.values is None else exact.values[order].astype(np.float64)
    parts = tuple(part.astype(np.int32) for part in _parts(exact, cells, np.asarray(table, np.float64)))
    return Told(exact.key, exact.measure, exact.minimum, numbers[order], parts, values)


def _parts(exact: ExactTable, cells: NDArray[np.int32], table: NDArray[np.float64]) -> list[NDArray[Any]]:
    if exact.measure == "quantiles" and len(exact.dimensions) == 1 and table.shape[1:] == (2,):
        return _intervals(exact, cells, table)
    lines, columns = exact.shape
    if exact.told is not None:
        told = exact.told.reshape(-1)
    elif exact.measure == "count" and table.shape == (lines, columns):
        told = table.reshape(-1) != HIDDEN
    else:
        # Not a form that is known here: as if everything were told.
        told = np.ones(lines * columns, np.bool_)
    somewhere = cells != NOWHERE
    return [np.where(somewhere & told[np.where(somewhere, cells, 0)], cells, NOBODY)]


def _intervals(exact: ExactTable, cells: NDArray[np.int32], table: NDArray[np.float64]) -> list[NDArray[Any]]:
    """Each quantile says that it lies among the patients between two edges: a cell of its own, beside no other."""
    edges = np.asarray(exact.dimensions[0].edges, np.float64)
    parts = [np.where(cells != NOWHERE, 0, NOBODY)]
    for low, high in table:
        first = int(np.count_nonzero(edges <= low))
        last = int(np.count_nonzero(edges < high))
        inside = (cells != NOWHERE) & (cells >= first) & (cells <= last)
        parts.append(np.where(inside, 0, NOBODY))
    return parts
