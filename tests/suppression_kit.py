"""Exact tables for tests of suppression, a guard that is given rows, and somebody who solves for what it hid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from egress_documents import ORDER, policy
from map_documents import map_manifest
from roster_kit import roster
from scipy.optimize import Bounds, LinearConstraint, milp

from policies.policy import DominanceRules
from policies.splits import Split
from station.egress.analyses.exact import NOWHERE, Dimension, ExactTable
from station.egress.analyses.tally import Tally
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release
from station.egress.suppression import HidingRules

RULES = HidingRules(10, DominanceRules())


def rules(minimum: int = 10, **dominance: Any) -> HidingRules:
    return HidingRules(minimum, DominanceRules(**dominance))


def dealt_out(counts: Any) -> np.ndarray[Any, Any]:
    """Return one cell per patient, so that the cells have these counts."""
    flat = np.asarray(counts).ravel()
    return np.repeat(np.arange(len(flat)), flat)


def count_table(key: str, cells: Any, *columns: tuple[str, int], minimum: int = 1) -> ExactTable:
    cells = np.asarray(cells, dtype=np.int32)
    return ExactTable(
        key, "count", Split.TRAINING, tuple(Dimension(name, (), bins) for name, bins in columns),
        tuple(f"p{n:06d}" for n in range(len(cells))), cells, None, None, minimum,
    )  # fmt: skip


def of_counts(counts: Any, *names: str, minimum: int = 1, key: str = "table") -> ExactTable:
    """Return a table with these counts."""
    array = np.asarray(counts)
    return count_table(key, dealt_out(array), *zip(names, array.shape, strict=True), minimum=minimum)


def sum_table(
    key: str, values: Sequence[float] | Any, lines: Any = None, *, by: str = "", bins: int = 1,
    column: str = "v", bounds: tuple[float, float] | None = (0.0, 1e6), minimum: int = 1,
) -> ExactTable:  # fmt: skip
    values = np.asarray(values, dtype=np.float64)
    cells = np.where(np.isnan(values), NOWHERE, 0 if lines is None else np.asarray(lines)).astype(np.int32)
    return ExactTable(
        key, "sum", Split.TRAINING, (Dimension(by, (), bins),), tuple(f"p{n:06d}" for n in range(len(values))),
        cells, np.nan_to_num(values), column, minimum, (), bounds,
    )  # fmt: skip


def category(name: str, bins: int, **more: Any) -> dict[str, Any]:
    """Return a column of rows with categories named 0, 1, and so on."""
    return {"name": name, "type": "category", "categories": [str(n) for n in range(bins)], **more}


def number(name: str, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "float", "minimum": low, "maximum": high, **more}


def count_of(column: str, by: str | None = None, **more: Any) -> dict[str, Any]:
    key = column if by is None else f"{column}_{by}"
    return {"key": key, "column": column, "by": by, "split": "training", "minimum_cell_count": 1, **more}


def sum_of(column: str, by: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        **count_of(column, by),
        "key": f"sum_{column}_{by or 'all'}",
        "measure": "sum",
        "decimals": 3,
        **more,
    }


def released(
    columns: Sequence[dict[str, Any]], aggregates: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]],
    **rules: Any,
) -> Release:  # fmt: skip
    """Return what leaves a station whose guard was given these rows, one of each patient."""
    manifest = map_manifest(
        {"error_codes": []},
        rows={"columns": list(columns), "patient_timeout_s": 60}, aggregates=list(aggregates),
    )  # fmt: skip
    keys = [item["key"] for item in aggregates]
    permitted = {"metrics": [], "tables": keys, "trust_statement": None, "minimum_cell_count": 10, **rules}
    contract = ReleaseContract.build(manifest, policy("analysis", **permitted), None)
    tally = Tally(manifest, roster(training=len(rows)))
    for place, row in enumerate(rows):
        assert tally.answered(f"training{place}", row)
    counts = CohortCounts({Split.TRAINING: SplitCounts(len(rows), len(rows))})
    request = GuardRequest(ORDER, 1, "analyse", None, Path("/nonexistent/out"))
    outcome = Guard(contract, counts).count(request, tally)
    assert isinstance(outcome, Release), outcome
    return outcome


class Attacker:
    """Somebody who solves for hidden counts: over every way to deal patients out to all combinations of the columns' bins.

    Nothing of how tables are hidden is used here, only what they tell: equations over whole numbers, solved exactly.
    """

    def __init__(self, **bins: int) -> None:
        self._bins = bins
        self._cells = np.indices(tuple(bins.values())).reshape(len(bins), -1)
        self._rows: list[Any] = []
        self._low: list[float] = []
        self._high: list[float] = []

    def _where(self, **place: int) -> Any:
        chosen = np.ones(self._cells.shape[1], dtype=bool)
        for name, code in place.items():
            chosen &= self._cells[list(self._bins).index(name)] == code
        return chosen.astype(float)

    def knows(self, low: float, high: float | None = None, **place: int) -> None:
        self._rows.append(self._where(**place))
        self._low.append(low)
        self._high.append(low if high is None else high)

    def reads(self, table: Any, *columns: str, base: int = 1) -> None:
        """Take what a table tells; -1 tells nothing. Rounded to a base, halves up, a number stands for that many."""
        for place, told in np.ndenumerate(np.asarray(table).reshape([self._bins[name] for name in columns])):
            if told >= 0:
                low = told - base // 2
                self.knows(max(low, 0), low + base - 1, **dict(zip(columns, place, strict=True)))

    def interval(self, **place: int) -> tuple[int, int]:
        """Return the least and the largest number that a combination of bins can hold."""
        wanted = self._where(**place)
        found = []
        for sign in (1, -1):
            solved = milp(
                sign * wanted,
                constraints=LinearConstraint(np.array(self._rows), self._low, self._high),
                integrality=np.ones_like(wanted), bounds=Bounds(0, np.inf),
            )  # fmt: skip
            assert solved.status == 0, solved.message
            found.append(round(float(wanted @ solved.x)))
        return found[0], found[1]
