"""The patients that the tables of one split divide, and the bins that each column puts them in.

Two tables tell of each other where they divide the same patients by the same column, and where one leaves out a few whom the other
counts. Both show here: a column's bins are put together from all tables that have it, and being in a table at all is a column too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.rows import OUTCOME
from station.egress.analyses.exact import NOWHERE, ExactTable
from station.egress.suppression.lines import Counts, Mask

Codes = NDArray[np.int64]
Key = tuple[str, tuple[float, ...]]
"""A column and the edges of its bins; of who is in a table at all, a name that no column has."""


@dataclass(frozen=True, slots=True)
class Column:
    """The bins of one column.

    Attributes:
        codes: each patient's bin; the last one, where `absent`, is of those whom no table puts in any. Shape (patients,).
        bins: how many, with that one.
        absent: whether there are such.
    """

    codes: Codes
    bins: int
    absent: bool

    def counts(self, everybody: Mask) -> Counts:
        """Patients per bin."""
        return np.bincount(self.codes[everybody], minlength=self.bins).astype(np.int64)


def is_outcome(table: ExactTable) -> bool:
    """Whether a table tells how containers ended: of every patient, also of those without a row."""
    return table.dimensions[0].column == OUTCOME


def keys_of(table: ExactTable) -> tuple[Key, ...]:
    """Return the columns that really divide a table: one bin alone divides nothing."""
    return tuple((d.column, d.edges) for d in table.dimensions if d.bins > 1)


class Population:
    """The patients of one split.

    Args:
        tables: of one split.
    """

    def __init__(self, tables: Sequence[ExactTable]) -> None:
        first = tables[0].patients if tables else ()
        if all(table.patients == first for table in tables):
            self.size = len(first)
            self._at = {table.key: np.arange(self.size, dtype=np.intp) for table in tables}
        else:
            names = sorted({patient for table in tables for patient in table.patients})
            place = {name: number for number, name in enumerate(names)}
            self.size = len(names)
            self._at = {
                table.key: np.array([place[name] for name in table.patients], dtype=np.intp)
                for table in tables
            }
        self.placed: dict[str, Mask] = {table.key: self.cells(table) != NOWHERE for table in tables}
        self._presences: dict[bytes, str] = {}
        rows = [self.placed[table.key] for table in tables if not is_outcome(table)]
        self.everybody: Mask = np.any(rows, axis=0) if rows else np.zeros(self.size, dtype=bool)
        self.columns: dict[Key, Column] = dict(
            self._columns([table for table in tables if not is_outcome(table)])
        )

    def cells(self, table: ExactTable) -> Codes:
        """Return each patient's cell of a table, or `NOWHERE`."""
        found = np.full(self.size, NOWHERE, dtype=np.int64)
        found[self._at[table.key]] = table.cells
        return found

    def values(self, table: ExactTable) -> NDArray[np.float64]:
        """Return what each patient adds to a sum; 0 for those in no cell."""
        if table.values is None:
            return np.zeros(self.size)
        found = np.zeros(self.size)
        found[self._at[table.key]] = table.values
        return np.where(self.placed[table.key], found, 0.0)

    def _codes(self, table: ExactTable) -> Mapping[Key, Codes]:
        cells, columns = self.cells(table), table.shape[1]
        by_place = (
            np.where(cells == NOWHERE, NOWHERE, cells // columns),
            np.where(cells == NOWHERE, NOWHERE, cells % columns),
        )
        keys = ((d.column, d.edges) for d in table.dimensions)
        return {
            key: codes for key, codes, d in zip(keys, by_place, table.dimensions, strict=False) if d.bins > 1
        }

    def _columns(self, tables: Sequence[ExactTable]) -> list[tuple[Key, Column]]:
        codes: dict[Key, Codes] = {}
        bins: dict[Key, int] = {}
        for table in tables:
            for key, found in self._codes(table).items():
                known = codes.setdefault(key, np.full(self.size, NOWHERE, dtype=np.int64))
                codes[key] = np.where(known == NOWHERE, found, known)
                bins[key] = max(
                    [bins.get(key, 0), *(d.bins for d in table.dimensions if (d.column, d.edges) == key)]
                )
        made = []
        for key, found in codes.items():
            absent = bool((found[self.everybody] == NOWHERE).any())
            filled = np.where(found == NOWHERE, bins[key], found) if absent else np.maximum(found, 0)
            made.append((key, Column(filled, bins[key] + absent, absent)))
        return made

    def presence(self, table: ExactTable) -> tuple[Key, Column]:
        """Return the column that says whether a patient is in a table: bin 0 is in it, bin 1 is not."""
        placed = self.placed[table.key]
        codes = np.where(placed, 0, 1).astype(np.int64)
        # Tables of the same patients share it.
        name = self._presences.setdefault(placed.tobytes(), f"in:{len(self._presences)}")
        return (name, ()), Column(codes, 2, absent=False)

    def agrees(self, table: ExactTable) -> bool:
        """Whether a table puts every patient in the bins that the others have for them."""
        return all(
            bool((self.columns[key].codes[self.placed[table.key]] == codes[self.placed[table.key]]).all())
            for key, codes in self._codes(table).items()
            if key in self.columns
        )

    def crosstab(self, first: Column, second: Column) -> Counts:
        """Patients per cell of two columns."""
        flat = first.codes[self.everybody] * second.bins + second.codes[self.everybody]
        return (
            np.bincount(flat, minlength=first.bins * second.bins)
            .reshape(first.bins, second.bins)
            .astype(np.int64)
        )
