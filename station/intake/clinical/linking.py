"""Which studies a clinical row belongs to, and what it says at each of them. Pure.

A row that does not name its issuer belongs to the patient with its id where one issuer only gave that id out. Several rows may
belong to one study: what is linked more closely (accession, then date, then patient) is believed first, and the others fill in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from policies.profiles import ClinicalValue, Profile, ProfileField

CLOSENESS = {"accession": 0, "date": 1, "patient": 2}


@dataclass(frozen=True, slots=True)
class KnownStudy:
    """A study that is here.

    Attributes:
        day: its original date, None where it has none.
    """

    study_uid: str
    patient: str
    accession: str
    day: date | None


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row of the register with its current version."""

    id: int
    version: int
    issuer: str
    patient_id: str
    accession: str
    day: date | None
    link: str
    days_before: int
    days_after: int
    every: bool
    fields: Mapping[str, ClinicalValue]
    dates: Mapping[str, str]


def patient_of(row: StoredRow, bearers: Mapping[str, Mapping[str, str]]) -> str | None:
    """Return the pseudonym of a row's patient; None where nobody or several have the id.

    Args:
        row: the row.
        bearers: pseudonyms by id, then issuer, of everybody whose images are here.
    """
    issuers = bearers.get(row.patient_id, {})
    if row.issuer:
        return issuers.get(row.issuer)
    patients = set(issuers.values())
    return patients.pop() if len(patients) == 1 else None


def studies_of(row: StoredRow, of_patient: Iterable[KnownStudy]) -> list[KnownStudy]:
    """Return which of its patient's studies a row belongs to."""
    if row.link == "accession":
        return [study for study in of_patient if study.accession == row.accession]
    if row.link == "patient":
        return list(of_patient)
    near = [(study, distance) for study in of_patient if (distance := _distance(row, study)) is not None]
    if row.every or not near:
        return [study for study, _ in near]
    # Of two equally near the later one; then by UID, so that it is the same one tomorrow.
    nearest = min(near, key=lambda found: (abs(found[1]), -found[1], found[0].study_uid))
    return [nearest[0]]


def values_at(
    rows: Iterable[StoredRow], profile: Profile, study: KnownStudy, shift_days: int | None
) -> dict[str, ClinicalValue]:
    """Return every field of the profile as it is at a study, from the rows that belong to it.

    Args:
        rows: in any order.
        profile: the one they were read under.
        study: the study.
        shift_days: by how many days this patient's dates are shifted; None where the collection keeps no dates.
    """
    ordered = sorted(rows, key=lambda row: (CLOSENESS[row.link], row.id))
    values: dict[str, ClinicalValue] = dict.fromkeys((field.name for field in profile.fields), None)
    for field in profile.fields:
        found = (_value(row, field, study, shift_days) for row in ordered)
        values[field.name] = next((value for value in found if value is not None), None)
    return values


def _value(row: StoredRow, field: ProfileField, study: KnownStudy, shift_days: int | None) -> ClinicalValue:
    if field.name in row.dates:
        return _computed(field, date.fromisoformat(row.dates[field.name]), study.day)
    value = row.fields.get(field.name)
    if field.kind == "date" and isinstance(value, str):
        return _shifted(value, shift_days)
    return value


def _computed(field: ProfileField, day: date, study_day: date | None) -> int | None:
    """Return an age or a number of days; None where it cannot be, or does not fit the field."""
    if study_day is None:
        return None
    if field.kind == "age":
        years = study_day.year - day.year - ((study_day.month, study_day.day) < (day.month, day.day))
        return None if years < (field.minimum or 0) else _at_most(years, field.maximum)
    days = (study_day - day).days * (1 if field.measured == "before-study" else -1)
    return days if field.fault(days) is None else None


def _at_most(value: int, maximum: float | None) -> int:
    return value if maximum is None else min(value, int(maximum))


def _shifted(value: str, shift_days: int | None) -> str | None:
    if shift_days is None:
        return None
    try:
        return date.fromordinal(date.fromisoformat(value).toordinal() + shift_days).isoformat()
    except (ValueError, OverflowError):
        return None


def _distance(row: StoredRow, study: KnownStudy) -> int | None:
    """Return how many days a study is after the row's date, where it is near enough."""
    if row.day is None or study.day is None:
        return None
    days = (study.day - row.day).days
    return days if -row.days_before <= days <= row.days_after else None
