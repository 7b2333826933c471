"""Clinical rows: an eCRF export read strictly under a minimal-dataset profile.

A profile is data: which fields are agreed, from which column, with which type and range. What it does not name is
never read. Labels link on (patient, accession); the hospital's own ids stay in intake.
"""

import math
from dataclasses import dataclass
from datetime import date

from policies.profiles import ClinicalValue, Profile, ProfileField
from station.intake.csv_reader import CsvRow, read_csv

_FLAGS = {"yes": True, "no": False}


@dataclass(frozen=True, slots=True)
class ClinicalEntry:
    """One row of an export, by the hospital's own ids.

    Attributes:
        birth_date: kept in intake to tell the age at each study.
        fields: the agreed fields but age.
    """

    patient_id: str
    accession: str
    birth_date: str | None
    fields: dict[str, ClinicalValue]


def read_export(data: bytes, profile: Profile, *, file: str = "ecrf.csv") -> list[ClinicalEntry]:
    """Read a whole export.

    Raises:
        CsvError: naming line and column; also when a (patient, accession) stands twice.
    """
    entries: dict[tuple[str, str], ClinicalEntry] = {}
    for row in read_csv(data, profile.columns, file=file):
        key = (row.required("patient_id"), row.required("accession"))
        if key in entries:
            raise row.error("accession", "stands twice for this patient")
        birth = next(
            (row.day(field.column or field.name) for field in profile.fields if field.kind == "age"), None
        )
        values = {field.name: _value(row, field) for field in profile.fields if field.kind != "age"}
        entries[key] = ClinicalEntry(*key, birth, values)
    return list(entries.values())


def values_at(entry: ClinicalEntry, profile: Profile, study_date: str) -> dict[str, ClinicalValue]:
    """Return the agreed fields at the time of a study, age in whole years among them.

    Args:
        entry: the export's row.
        profile: the profile it was read under.
        study_date: the original Study Date, YYYYMMDD, or empty.
    """
    values = dict(entry.fields)
    for field in profile.fields:
        if field.kind == "age":
            values[field.name] = _age(entry.birth_date, study_date, field)
    return values


def _value(row: CsvRow, field: ProfileField) -> ClinicalValue:
    text = row.values[field.column or field.name]
    if not text:
        return None
    if field.values:
        if text not in field.codes:
            raise row.error(field.column or field.name, f"is not one of {', '.join(field.codes)}")
        return int(text) if field.kind == "integer" else text
    if field.kind == "flag":
        if text not in _FLAGS:
            raise row.error(field.column or field.name, "is neither yes nor no")
        return _FLAGS[text]
    return _number(row, field, text)


def _number(row: CsvRow, field: ProfileField, text: str) -> int | float:
    try:
        number = int(text) if field.kind == "integer" else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise row.error(
            field.column or field.name,
            "is not a number" if field.kind == "number" else "is not a whole number",
        )
    if (field.minimum is not None and number < field.minimum) or (
        field.maximum is not None and number > field.maximum
    ):
        raise row.error(field.column or field.name, f"is not between {field.minimum} and {field.maximum}")
    return number


def _age(birth_date: str | None, study_date: str, field: ProfileField) -> int | None:
    try:
        born = date.fromisoformat(birth_date or "")
        seen = date(int(study_date[:4]), int(study_date[4:6]), int(study_date[6:8]))
    except ValueError:
        return None
    years = seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))
    if years < (field.minimum or 0):
        return None
    return min(years, int(field.maximum)) if field.maximum is not None else years
