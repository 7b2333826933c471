"""The station's own collecting: one row of each patient of a cohort becomes exact tables.

    row of one patient -> bounded -> kept, compactly -> exact tables -> hidden or noised, rounded -> table

Pure. A row is kept as one number per column: for p patients and c columns ``8 p c`` bytes and 2 p for how it ended (50,000
patients and 10 columns: 4 MB; the most that may be counted, a million and 32: 258 MB), beside what the cohort's own list takes.
Invariants: nobody is counted twice, and nobody who is not in the cohort at all; what no schema accepts is no row, and nothing of
it is read; a clinical or acquisition column holds what the station's own table shows, whatever a train says, and a
combined column what the others have.

What is too small to leave is not decided here (`station.egress.suppression`), nor what differs by one patient from what left
before (`station.egress.differencing`): both are given the exact tables, with the patients in them by the project's pseudonyms.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.aggregates import AggregateOutput
from policies.manifest import TrainManifest
from policies.rows import ANSWERED, FAILURES, MAX_PATIENTS, OUTCOME, Cell, RowColumn, bin_names
from policies.splits import Split
from station.cohorts.roster import Roster
from station.egress.analyses.exact import NOWHERE, Dimension, ExactTable

Lines = tuple[tuple[int, ...], ...]

_ROW: Final = "row"
_NOT_YET: Final = -1


class Tally:
    """The rows of a cohort's patients under one manifest, as far as they have come.

    Args:
        manifest: of a train of rows.
        roster: whose rows there can be.
    """

    def __init__(self, manifest: TrainManifest, roster: Roster) -> None:
        self.manifest: Final = manifest
        self._roster: Final = roster
        self._places: Final = {patient: place for place, patient in enumerate(roster.patients)}
        self._names: Final = (ANSWERED, *manifest.error_codes, *FAILURES)
        self._ends: Final = np.full(len(self._places), _NOT_YET, np.int16)
        schema = manifest.outputs.rows
        self._columns: Final[dict[str, RowColumn]] = {
            column.name: column for column in (() if schema is None else schema.columns)
        }
        # A category as its place among the column's, a number as it is; missing is not-a-number.
        self._values: Final[dict[str, NDArray[np.float64]]] = {
            name: np.full(len(self._places), math.nan) for name in self._columns
        }

    # -- collecting --------------------------------------------------------------------------------------------

    def answered(self, patient: str, answer: object) -> bool:
        """Take one patient's answer; returns whether it was a row.

        Args:
            patient: the train's pseudonym; who is not in the cohort, or was taken already, is not taken.
            answer: untrusted.
        """
        schema = self.manifest.outputs.rows
        row = None if schema is None else schema.read(answer)
        place = self._free(patient)
        if place is None:
            return False
        full = None if row is None else self._filled(patient, row)
        # Without a row they are in no table, as whoever a program failed for: the rules on those hold for these.
        lacks = full is not None and schema is not None and schema.complete and None in full.values()
        if full is None or lacks:
            self.failed(patient, _ROW)
            return False
        for name, value in full.items():
            self._values[name][place] = _number(self._columns[name], value)
        self._ends[place] = 0
        return True

    def failed(self, patient: str, how: str) -> None:
        """Take one patient as without a row; `how` is a declared error code, or one of `policies.rows.FAILURES`."""
        place = self._free(patient)
        if place is not None:
            self._ends[place] = self._names.index(how if how in self._names else FAILURES[0])

    def take(self, rows: object) -> str | None:
        """Take the rows of everybody at once: ``{column: [value, ...]}`` in the order of the train's list of patients.

        All of it or nothing: one value outside its column, a list of another length, a column that is not the train's or is
        not there, and nobody is taken.

        Args:
            rows: untrusted.

        Returns:
            What is wrong, in words that hold nothing of the answer; None where all were taken.
        """
        schema = self.manifest.outputs.rows
        patients = self.stated_patients()
        if schema is None or not isinstance(rows, Mapping):
            return "rows are no object of columns"
        columns = schema.of_train
        if len(rows) != len(columns) or any(column.name not in rows for column in columns):
            return "there are other columns than the train has to fill in"
        taken: dict[str, list[Cell]] = {}
        for column in columns:
            values = rows[column.name]
            if not isinstance(values, list | tuple) or len(values) != len(patients):
                return f"{column.name} is no list of one value per patient"
            read = [_listed(column, value) for value in values]
            if not all(map(column.accepts, read)):
                return f"{column.name} has a value outside its bounds"
            taken[column.name] = [value for value in read if isinstance(value, str | int | float | None)]
        for number, patient in enumerate(patients):
            self.answered(patient, {name: values[number] for name, values in taken.items()})
        return None

    def fill(self) -> None:
        """Take everybody by what the station knows alone: for a train without a program."""
        for patient in self._places:
            self.answered(patient, {})

    def stated_patients(self) -> tuple[str, ...]:
        """Whose rows a train states at once, in order: the patients of the splits that its aggregates count."""
        return tuple(p for split in self.manifest.row_splits for p in self._roster.splits.get(split, ()))

    def _free(self, patient: str) -> int | None:
        place = self._places.get(patient)
        return place if place is not None and self._ends[place] == _NOT_YET else None

    def _filled(self, patient: str, row: dict[str, Cell]) -> dict[str, Cell] | None:
        for column in self._columns.values():
            if column.source not in {"clinical", "acquisition"}:
                continue
            value = clinical_value(column, self._roster.shown(patient, column.name))
            if not column.accepts(value):
                return None
            row[column.name] = value
        schema = self.manifest.outputs.rows
        for name, joined in ({} if schema is None else schema.joined(row)).items():
            if not self._columns[name].accepts(joined):
                return None
            row[name] = joined
        return row

    # -- what came ---------------------------------------------------------------------------------------------

    @property
    def failures(self) -> int:
        """How many patients gave no row."""
        return int(np.count_nonzero(self._ends > 0))

    @property
    def ends(self) -> Counter[str]:
        """How it ended, over all splits."""
        return self._counted(self._ends)

    def outcomes(self, split: Split) -> Counter[str]:
        """How it ended in one split."""
        return self._counted(self._ends[self._of(split)])

    def _counted(self, ends: NDArray[np.int16]) -> Counter[str]:
        numbers, counts = np.unique(ends[ends != _NOT_YET], return_counts=True)
        return Counter({self._names[int(n)]: int(count) for n, count in zip(numbers, counts, strict=True)})

    def patients(self, item: AggregateOutput) -> int:
        """Return how many patients an aggregate counts."""
        ends = self.outcomes(item.split)
        return sum(ends.values()) if item.column == OUTCOME else ends[ANSWERED]

    def _of(self, split: Split) -> NDArray[np.int64]:
        return np.array([self._places[p] for p in self._roster.splits.get(split, ())], np.int64)

    # -- exact tables ------------------------------------------------------------------------------------------

    def exact(self, item: AggregateOutput, minimum: int, granted: frozenset[str] | None = None) -> ExactTable:
        """Return an aggregate's exact table.

        Args:
            item: one of the manifest's.
            minimum: the least patients a told cell holds.
            granted: the error codes that may be told; another one is a crash, and has no line. None for all.
        """
        places = self._of(item.split)
        patients = tuple(self._roster.names[self._name_at(item.split, n)] for n in range(len(places)))
        if item.column == OUTCOME:
            names = self.outcome_lines(granted)
            told = np.array([names.index(name if name in names else FAILURES[0]) for name in self._names])
            ends = self._ends[places]
            cells = np.where(ends == _NOT_YET, NOWHERE, told[np.maximum(ends, 0)])
            return _table(item, (Dimension(OUTCOME, (), len(names)),), patients, cells, minimum)
        answered = self._ends[places] == 0
        values = self._values[item.column][places]
        by = None if item.by is None else self._columns[item.by]
        columns = None if by is None else _bins(by, (), self._values[by.name][places])
        if item.measure == "sum":
            there = answered & ~np.isnan(values)
            line = np.zeros(len(places), np.int64) if columns is None else columns
            dimension = Dimension("", (), 1) if by is None else _dimension(by, ())
            cells = np.where(there, line, NOWHERE)
            summed = _table(item, (dimension,), patients, cells, minimum)
            number = self._columns[item.column]
            return replace(
                summed,
                values=np.where(there, values, 0.0),
                value_column=number.name,
                bounds=(number.minimum or 0.0, number.maximum or 0.0),
            )
        column = self._columns[item.column]
        lines = _bins(column, item.edges, values)
        if item.measure == "quantiles":
            there = answered & ~np.isnan(values)
            dimension = Dimension(column.name, item.edges, len(item.edges) + 1)
            return _table(item, (dimension,), patients, np.where(there, lines, NOWHERE), minimum)
        first = _dimension(column, item.edges)
        if by is None or columns is None:
            return _table(item, (first,), patients, np.where(answered, lines, NOWHERE), minimum)
        second = _dimension(by, ())
        cells = np.where(answered, lines * second.bins + columns, NOWHERE)
        return _table(item, (first, second), patients, cells, minimum)

    def without_value(self, item: AggregateOutput) -> tuple[int, ...]:
        """Return how many patients with a row have no value to sum or to order, per line of the sum or in all."""
        places = self._of(item.split)
        lacking = (self._ends[places] == 0) & np.isnan(self._values[item.column][places])
        if item.by is None:
            return (int(np.count_nonzero(lacking)),)
        by = self._columns[item.by]
        lines = _bins(by, (), self._values[by.name][places])[lacking]
        return tuple(int(n) for n in np.bincount(lines, minlength=len(bin_names(by, ()))))

    def outcome_lines(self, granted: frozenset[str] | None) -> tuple[str, ...]:
        """Return the lines of how it ended that may hold anybody."""
        return tuple(
            name
            for name in self._names
            if granted is None or name in granted or name in (ANSWERED, *FAILURES)
        )

    def _name_at(self, split: Split, number: int) -> str:
        return self._roster.splits[split][number]


def clinical_value(column: RowColumn, shown: tuple[str, ...]) -> Cell:
    """Return a patient's value of a clinical column from what the cohort's table shows; None where it shows none.

    Of several (a patient with several studies) the smallest number, or the first in the order of the column's categories: the
    same for every train. A text that is no number stays one, which no column of numbers accepts.

    >>> bands = RowColumn(name="age", type="category", categories=("50-59", "60-69"), source="clinical")
    >>> clinical_value(bands, ("60-69", "50-59")), clinical_value(bands, ()), clinical_value(bands, ("90+",))
    ('50-59', None, '90+')
    """
    if not shown:
        return None
    if column.type == "category":
        known = [category for category in column.categories if category in shown]
        return known[0] if known else _outside(column, shown[0])
    try:
        numbers = [int(text) if column.type == "int" else float(text) for text in shown]
    except ValueError:
        return _outside(column, shown[0])
    inside = [number for number in numbers if column.accepts(number)]
    return min(inside) if inside else _outside(column, numbers[0])


def _outside(column: RowColumn, value: str | float) -> Cell:
    """What the column does not hold is missing where that may be, else no value of it."""
    return None if column.missing else value


def stated_cells(manifest: TrainManifest, roster: Roster) -> int:
    """Return how many values a train states of everybody at once; none where it is asked patient by patient, or not at all."""
    rows = manifest.outputs.rows
    if rows is None or manifest.program in {None, "map"}:
        return 0
    return len(rows.of_train) * sum(len(roster.splits.get(split, ())) for split in manifest.row_splits)


def countable(tally: Tally) -> bool:
    """Whether there are no more patients than the board's bound on bits counts with."""
    return sum(tally.ends.values()) <= MAX_PATIENTS


def _listed(column: RowColumn, value: object) -> object:
    """Read a value of a list: a category may be told by its place, since Flower's lists of metrics hold numbers only."""
    if column.type == "category" and type(value) is int and 0 <= value < len(column.categories):
        return column.categories[value]
    return value


def _number(column: RowColumn, value: Cell) -> float:
    if value is None:
        return math.nan
    return float(column.categories.index(value)) if isinstance(value, str) else float(value)


def _bins(column: RowColumn, edges: tuple[float, ...], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return each value's bin, as `policies.rows.bin_of` has it: on an edge the one above, missing the last."""
    count = len(column.categories) if column.type == "category" else len(edges) + 1
    missing = np.isnan(values)
    known = np.where(missing, 0.0, values)
    found = known.astype(np.int64) if column.type == "category" else np.searchsorted(edges, known, "right")
    return np.where(missing, count, found).astype(np.int64)


def _dimension(column: RowColumn, edges: tuple[float, ...]) -> Dimension:
    return Dimension(column.name, edges, len(bin_names(column, edges)), column.of)


def _table(
    item: AggregateOutput,
    dimensions: tuple[Dimension, ...],
    patients: tuple[str, ...],
    cells: NDArray[np.generic],
    minimum: int,
) -> ExactTable:
    return ExactTable(
        key=item.key,
        measure=item.measure,
        split=item.split,
        dimensions=dimensions,
        patients=patients,
        cells=cells.astype(np.int32),
        values=None,
        value_column=None,
        minimum=minimum,
        probabilities=item.probabilities,
    )
