"""Exact tables for tests of suppression: from the counts themselves, or from rows of patients."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from policies.manifest import Split
from policies.policy import DominanceRules
from station.egress.analyses.exact import NOWHERE, Dimension, ExactTable
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
