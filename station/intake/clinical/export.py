"""Reads an eCRF export under its mapping: rows by the hospital's own ids, and a report of how each field fared.

Pure. What the mapping does not name is never looked at. Dates from which an age or a number of days follows stay dates here:
they are computed when a study is known (`linking`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from policies.profiles import ClinicalValue, Profile, ProfileField
from station.intake.clinical.cells import MAX_ID_CHARACTERS, is_missing, read_day, read_value, text_fault
from station.intake.clinical.delimited import Delimited, Line
from station.intake.clinical.mapping import (
    ByDate,
    ByPatient,
    ExportMapping,
    FieldSource,
    numbered,
    plain_mapping,
)
from station.intake.clinical.report import Fault, Findings, RowFault, RowProblem, ValidationReport


@dataclass(frozen=True, slots=True)
class RowKey:
    """What a row is about: a patient, and one of their studies by accession, by date, or all of them.

    Attributes:
        issuer: empty where the export does not say.
        accession, day: empty where the mapping links otherwise.
    """

    issuer: str
    patient_id: str
    accession: str
    day: str


@dataclass(frozen=True, slots=True)
class ClinicalEntry:
    """One row of an export.

    Attributes:
        values: the fields that the mapping covers; None where nothing is known.
        dates: YYYY-MM-DD by field, of fields that are computed from a date; they stay in intake.
    """

    key: RowKey
    values: dict[str, ClinicalValue]
    dates: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """A whole export: its rows without fault, and the report."""

    entries: tuple[ClinicalEntry, ...]
    report: ValidationReport


def read_export(
    data: bytes, profile: Profile, mapping: ExportMapping | None = None, *, file: str = "ecrf.csv"
) -> Reading:
    """Read a whole export.

    Args:
        data: the file.
        profile: the profile that the mapping names.
        mapping: the built-in `plain` one unless told.
        file: what to call the file in errors.

    Raises:
        CsvError: the file is not a table with the mapping's columns; naming line and column.
    """
    return _Export(data, profile, mapping or plain_mapping(profile), file).read()


class _Export:
    def __init__(self, data: bytes, profile: Profile, mapping: ExportMapping, file: str) -> None:
        self._mapping = mapping
        self._fields = {name: profile.field(name) for name in mapping.fields}
        self._table = Delimited(data, mapping.table, file)
        self._numbers = self._repeats_there()
        wanted = dict.fromkeys(
            numbered(column, number) for number in self._numbers for column in mapping.columns()
        )
        self._places = self._table.require(list(wanted), only=mapping.table.other_columns == "refused")
        self._findings = Findings(mapping.fields)
        self._seen: set[RowKey] = set()

    def read(self) -> Reading:
        entries = []
        for line in self._table.lines():
            if line.cells is None:
                self._findings.row([RowProblem(line.number, None, RowFault.WRONG_LENGTH)])
            elif self._left_out(line):
                self._findings.skip()
            else:
                entries += list(self._entries(line))
        return Reading(tuple(entries), self._findings.report())

    def _repeats_there(self) -> tuple[int, ...]:
        """Return the repeats that the header has; all where it has none, so that the missing column is named."""
        numbers = self._mapping.numbers()
        if self._mapping.repeats is None or isinstance(self._mapping.study, ByPatient):
            return numbers
        there = set(self._table.columns)
        link = self._mapping.study.column
        return tuple(number for number in numbers if numbered(link, number) in there) or numbers[:1]

    def _left_out(self, line: Line) -> bool:
        only = self._mapping.only_rows
        return only is not None and self._cell(line, only.column, 0) not in only.values

    def _cell(self, line: Line, column: str, number: int) -> str:
        cells = line.cells or []
        return cells[self._places[numbered(column, number)]].strip()

    def _entries(self, line: Line) -> Iterator[ClinicalEntry]:
        for number in self._numbers:
            study = self._mapping.study
            if (
                self._mapping.repeats is not None
                and not isinstance(study, ByPatient)
                and self._nothing(self._cell(line, study.column, number))
            ):
                continue
            entry = self._entry(line, number)
            if entry is not None:
                yield entry

    def _nothing(self, text: str) -> bool:
        return not text or text in self._mapping.missing

    def _entry(self, line: Line, number: int) -> ClinicalEntry | None:
        problems: list[RowProblem] = []
        key = self._key(line, number, problems)
        values: dict[str, ClinicalValue] = {}
        dates: dict[str, str] = {}
        for name, source in self._mapping.fields.items():
            self._field((line, number), self._fields[name], source, (values, dates, problems))
        if not problems and key in self._seen:
            problems.append(RowProblem(line.number, self._link_column(number), RowFault.STANDS_TWICE))
        self._findings.row(problems)
        if problems:
            return None
        self._seen.add(key)
        return ClinicalEntry(key, values, dates)

    def _field(
        self,
        place: tuple[Line, int],
        described: ProfileField,
        source: FieldSource,
        into: tuple[dict[str, ClinicalValue], dict[str, str], list[RowProblem]],
    ) -> None:
        """Read one field's cell into the row's values, dates or problems."""
        values, dates, problems = into
        text = self._cell(place[0], source.named, place[1])
        missing = is_missing(text, source, self._mapping)
        fault: Fault | None = None
        values[described.name] = None
        if missing:
            fault = RowFault.MISSING if described.required else None
        elif source.date_column is not None:
            day = read_day(text, source.date_form or self._mapping.dates)
            fault = None if day else (text_fault(text) or RowFault.NOT_A_DATE)
            if day:
                dates[described.name] = day
        else:
            values[described.name], fault = read_value(text, described, source, self._mapping)
        self._findings.value(described.name, fault, missing=missing)
        if fault is not None:
            problems.append(RowProblem(place[0].number, numbered(source.named, place[1]), fault))

    def _key(self, line: Line, number: int, problems: list[RowProblem]) -> RowKey:
        patient, study = self._mapping.patient, self._mapping.study
        patient_id = self._id(line, numbered(patient.id_column, number), problems)
        issuer = patient.issuer or ""
        if patient.issuer_column is not None:
            issuer = self._id(line, numbered(patient.issuer_column, number), problems)
        accession = day = ""
        if isinstance(study, ByDate):
            column = numbered(study.column, number)
            text = self._cell(line, column, number)
            day = read_day(text, self._mapping.dates) or ""
            if not day:
                fault = RowFault.MISSING if self._nothing(text) else (text_fault(text) or RowFault.NOT_A_DATE)
                problems.append(RowProblem(line.number, column, fault))
        elif not isinstance(study, ByPatient):
            accession = self._id(line, numbered(study.column, number), problems)
        return RowKey(issuer, patient_id, accession, day)

    def _id(self, line: Line, column: str, problems: list[RowProblem]) -> str:
        text = self._cell(line, column, 0)
        fault: Fault | None = text_fault(text)
        if self._nothing(text):
            fault = RowFault.MISSING
        elif fault is None and len(text) > MAX_ID_CHARACTERS:
            fault = RowFault.NOT_AN_ID
        if fault is not None:
            problems.append(RowProblem(line.number, column, fault))
        return text

    def _link_column(self, number: int) -> str:
        study = self._mapping.study
        column = self._mapping.patient.id_column if isinstance(study, ByPatient) else study.column
        return numbered(column, number)
