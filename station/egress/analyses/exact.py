"""An exact table: what the station counted, before any rule has looked at it. It never leaves as it is.

Counting makes these, suppression hides of them, and the guard against differences compares them with earlier ones.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from policies.splits import Split

NOWHERE: Final = -1
"""The cell of a patient who is in none, for example one without a row."""

Measure = Literal["count", "sum", "quantiles"]


@dataclass(frozen=True, slots=True)
class Dimension:
    """One way in which a table divides patients.

    Attributes:
        column: of the rows, or `policies.rows.OUTCOME`.
        edges: between the bins of a number; empty for categories.
        bins: how many.
        of: the columns that this one joins; empty for one that joins none.
    """

    column: str
    edges: tuple[float, ...]
    bins: int
    of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExactTable:
    """Patients of one split, dealt out to the cells of one table.

    Attributes:
        key: of the manifest's aggregate.
        measure: what is told of each cell.
        split: whose patients.
        dimensions: one or two; the first one's bins are the lines.
        patients: project pseudonyms, in the order of the two arrays.
        cells: the flat cell of each patient (line times columns plus column), or `NOWHERE`. Shape (patients,).
        values: what each patient adds to a sum, bounded by the column's range; None where nothing is summed. Shape (patients,).
        value_column: whose values they are; None where nothing is summed.
        minimum: the least patients a told cell holds.
        probabilities: of the quantiles that are asked for; empty otherwise.
        bounds: least and greatest that a value can be, as the manifest declares; None where nothing is summed.
        told: which cells a number left of, in the table's shape; None where that is not decided yet.
    """

    key: str
    measure: Measure
    split: Split
    dimensions: tuple[Dimension, ...]
    patients: tuple[str, ...]
    cells: NDArray[np.int32]
    values: NDArray[np.float64] | None
    value_column: str | None
    minimum: int
    probabilities: tuple[float, ...] = ()
    bounds: tuple[float, float] | None = None
    told: NDArray[np.bool_] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Lines and columns."""
        return self.dimensions[0].bins, self.dimensions[1].bins if len(self.dimensions) > 1 else 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """Patients per cell, in the table's shape."""
        lines, columns = self.shape
        here = self.cells[self.cells != NOWHERE]
        return np.bincount(here, minlength=lines * columns).reshape(lines, columns).astype(np.int64)
