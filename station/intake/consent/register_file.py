"""The consent register: read strictly, and resolved to the state compute gets.

Pure: takes bytes and patients, gives records. Opt-in: a patient or purpose without an entry has not
consented. An objection always wins: over a consent beside it in one file, over a file that has forgotten it, and over
doubt about whose it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from policies.policy import ConsentPurpose
from station.handover import ConsentRecord
from station.intake.csv_reader import CsvError, read_csv

COLUMNS = ("patient_id", "decision", "purpose", "date")
Decision = Literal["consent", "objection", "none"]
_DECISIONS: dict[str, Decision] = {"consent": "consent", "objection": "objection", "none": "none"}
_PURPOSES = {purpose.value for purpose in ConsentPurpose}
# Of two entries for one patient and purpose the lower stands; of equal ones the later.
_ORDER = {"objection": 0, "none": 1, "consent": 2}


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision of the register, by the hospital's own patient id."""

    patient_id: str
    purpose: str
    decision: Decision
    date: str


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient whose images came in."""

    pseudonym: str
    issuer: str
    patient_id: str


def read_register(data: bytes, *, file: str = "consent.csv") -> list[Entry]:
    """Read the whole register.

    Raises:
        CsvError: a column is missing, a decision or purpose unknown, a date wrong, or no row is there: an empty
            register would withdraw every consent, which a mistake must not do.
    """
    found: dict[tuple[str, str], Entry] = {}
    for row in read_csv(data, COLUMNS, file=file):
        decision = decision_of(row.required("decision"))
        if decision is None:
            raise row.error("decision", "is not one of consent, objection, none")
        purpose = row.required("purpose")
        if purpose not in _PURPOSES:
            raise row.error("purpose", f"is not one of {', '.join(sorted(_PURPOSES))}")
        row.required("date")
        entry = Entry(row.required("patient_id"), purpose, decision, row.day("date") or "")
        key = (entry.patient_id, entry.purpose)
        found[key] = _prevailing(found[key], entry) if key in found else entry
    if not found:
        raise CsvError(file, 1, None, "the register is empty")
    return list(found.values())


def decision_of(text: str) -> Decision | None:
    """Return a decision by its word, None for an unknown one."""
    return _DECISIONS.get(text)


def merge(standing: Iterable[Entry], read: Iterable[Entry]) -> list[Entry]:
    """Return the new state: what was read, and every objection that the file no longer names.

    A later consent in the file ends an objection; its absence does not.
    """
    state = {(entry.patient_id, entry.purpose): entry for entry in read}
    for entry in standing:
        new = state.get((entry.patient_id, entry.purpose))
        if entry.decision == "objection" and (new is None or new.date <= entry.date):
            state[entry.patient_id, entry.purpose] = entry
    return sorted(state.values(), key=lambda entry: (entry.patient_id, entry.purpose))


def resolve(entries: Iterable[Entry], patients: Iterable[Patient]) -> tuple[list[ConsentRecord], int]:
    """Return the state by pseudonym, for patients whose images are here, and the number of ambiguous ids.

    An id that two issuers have given out says nobody's consent; an objection under it counts for all of them.
    """
    by_id: dict[str, list[Patient]] = {}
    for patient in patients:
        by_id.setdefault(patient.patient_id, []).append(patient)
    records: list[ConsentRecord] = []
    for entry in entries:
        bearers = by_id.get(entry.patient_id, [])
        if len(bearers) > 1 and entry.decision != "objection":
            continue
        records.extend(
            ConsentRecord(
                patient=bearer.pseudonym, purpose=entry.purpose, decision=entry.decision, date=entry.date
            )
            for bearer in bearers
        )
    return sorted(records, key=lambda record: (record.patient, record.purpose)), _ambiguous(by_id)


def _ambiguous(by_id: Mapping[str, list[Patient]]) -> int:
    return sum(len(bearers) > 1 for bearers in by_id.values())


def _prevailing(one: Entry, other: Entry) -> Entry:
    if one.decision != other.decision:
        return min(one, other, key=lambda entry: _ORDER[entry.decision])
    return max(one, other, key=lambda entry: entry.date)
