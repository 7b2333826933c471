"""What was found in an export: counts per field, and which rows are wrong, by line and column.

Invariant: nothing here holds a value of the file.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from policies.profiles import ValueFault
from station.intake.csv_reader import CsvError

MAX_LISTED = 100
"""How many wrong cells a report lists; it counts them all."""


class RowFault(StrEnum):
    """What can be wrong with a row, beside the faults of a value (`ValueFault`)."""

    MISSING = "missing"
    NOT_AN_ID = "not-an-id"
    NOT_A_DATE = "not-a-date"
    STANDS_TWICE = "stands-twice"
    FORMULA = "formula"
    NOT_PLAIN_TEXT = "not-plain-text"
    WRONG_LENGTH = "wrong-length"


Fault = RowFault | ValueFault

_SAYS: dict[Fault, str] = {
    RowFault.MISSING: "is empty, and must not be",
    RowFault.NOT_AN_ID: "is not an id of at most 64 printable characters",
    RowFault.NOT_A_DATE: "is not a date of the form that the mapping names",
    RowFault.STANDS_TWICE: "stands twice for this patient",
    RowFault.FORMULA: "begins like a formula of a spreadsheet",
    RowFault.NOT_PLAIN_TEXT: "is too long or holds a control character",
    RowFault.WRONG_LENGTH: "has another number of cells than the header",
    ValueFault.NOT_ITS_TYPE: "is not of the field's type",
    ValueFault.OUT_OF_RANGE: "is not in the field's range",
    ValueFault.UNKNOWN_CODE: "is not one of the field's values",
}


@dataclass(frozen=True, slots=True)
class RowProblem:
    """One wrong cell (or row, without a column)."""

    line: int
    column: str | None
    fault: Fault

    @property
    def says(self) -> str:
        """What is wrong, in words."""
        return _SAYS[self.fault]


@dataclass(slots=True)
class FieldCounts:
    """How one field of the profile fared."""

    present: int = 0
    missing: int = 0
    wrong: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """How an export fared under its mapping and profile.

    Attributes:
        rows: rows that were looked at; `skipped` ones are not among them.
        accepted: rows without a fault.
        skipped: rows that the mapping leaves out.
        fields: by the profile's name.
        problems: the first wrong cells, in the order of the file.
        wrong_cells: how many there are in all.
    """

    rows: int
    accepted: int
    skipped: int
    fields: dict[str, FieldCounts]
    problems: tuple[RowProblem, ...]
    wrong_cells: int

    @property
    def refused(self) -> int:
        """How many rows are wrong."""
        return self.rows - self.accepted


class Findings:
    """Gathers a report, row by row."""

    def __init__(self, fields: Iterable[str]) -> None:
        self._fields = {name: FieldCounts() for name in fields}
        self._problems: list[RowProblem] = []
        self._cells = self._rows = self._accepted = self._skipped = 0

    def skip(self) -> None:
        """Count a row that the mapping leaves out."""
        self._skipped += 1

    def row(self, problems: list[RowProblem]) -> None:
        """Count a row with what is wrong with it."""
        self._rows += 1
        self._accepted += not problems
        self._cells += len(problems)
        self._problems += problems[: max(0, MAX_LISTED - len(self._problems))]

    def value(self, name: str, fault: Fault | None, *, missing: bool) -> None:
        """Count what became of one field's cell."""
        counts = self._fields[name]
        if fault is not None:
            counts.wrong[fault.value] += 1
        elif missing:
            counts.missing += 1
        else:
            counts.present += 1

    def report(self) -> ValidationReport:
        """Return what was gathered."""
        return ValidationReport(
            self._rows,
            self._accepted,
            self._skipped,
            self._fields,
            tuple(self._problems),
            self._cells,
        )


class ExportRefusedError(CsvError):
    """An export has rows that are wrong, and was refused whole.

    Attributes:
        report: what was found.
    """

    def __init__(self, file: str, report: ValidationReport) -> None:
        first = report.problems[0]
        super().__init__(file, first.line, first.column, first.says)
        rows = "1 row is wrong" if report.refused == 1 else f"{report.refused} rows are wrong"
        self.message += f" ({rows})"
        self.hint = (
            "Nothing was taken from it. Correct the export and import it again; --dry-run shows all that is wrong, "
            "--skip-wrong-rows takes the others."
        )
        self.report = report
