"""The patients of a FHIR register: who a Consent is about, and when they were born and died."""

import calendar
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from station.intake.consent.codes import ConsentCodes
from station.intake.consent.decisions import PatientFacts, PatientId
from station.intake.consent.fhir_elements import (
    EntryReason,
    Refusal,
    Resource,
    day_of,
    items,
    refuse_unless,
)

_MAX_ID_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Patients:
    """The Patients of a file, by the references that may name them.

    Attributes:
        by_reference: ``Patient/<id>`` and the full URL, each with the ids the hospital has given the patient.
        relatives: references to RelatedPersons of the file.
    """

    by_reference: dict[str, tuple[PatientId, ...]] = field(default_factory=dict)
    facts: dict[PatientId, PatientFacts] = field(default_factory=dict)
    relatives: set[str] = field(default_factory=set)

    def of(self, subject: object, codes: ConsentCodes) -> tuple[PatientId, ...]:
        """Return whom a Consent is about.

        Raises:
            Refusal: nobody, or somebody who is not in the file and has no identifier of a known system.
        """
        refuse_unless(isinstance(subject, dict), EntryReason.PATIENT)
        about: Resource = subject if isinstance(subject, dict) else {}
        refuse_unless("modifierExtension" not in about, EntryReason.MODIFIER_EXTENSION)
        found = self.by_reference.get(str(about.get("reference")), ())
        if found:
            return found
        refuse_unless("identifier" in about, EntryReason.PATIENT_NOT_IN_FILE)
        return _identified([about["identifier"]], codes)


def read_patients(
    entries: Iterable[tuple[int, str | None, Resource]],
    codes: ConsentCodes,
    today: date,
    problems: list[tuple[int, EntryReason]],
) -> Patients:
    """Read the Patients of a file; what cannot be read is added to `problems`."""
    patients = Patients()
    for index, url, resource in entries:
        kind, identity = resource.get("resourceType"), resource.get("id")
        references = [name for name in (url, f"{kind}/{identity}" if identity else None) if name]
        if kind == "RelatedPerson":
            patients.relatives.update(references)
        if kind != "Patient":
            continue
        try:
            refuse_unless("modifierExtension" not in resource, EntryReason.MODIFIER_EXTENSION)
            refuse_unless("implicitRules" not in resource, EntryReason.UNKNOWN_ELEMENT)
            ids = _identified(items(resource.get("identifier"), EntryReason.PATIENT), codes)
            facts = PatientFacts(_born(resource), _deceased(resource, today))
            again = any(patients.by_reference.get(name, ids) != ids for name in references)
            refuse_unless(bool(references) and not again, EntryReason.PATIENT)
            refuse_unless(all(patients.facts.get(one, facts) == facts for one in ids), EntryReason.PATIENT)
        except Refusal as refusal:
            problems.append((index, refusal.reason))
            continue
        patients.by_reference.update(dict.fromkeys(references, ids))
        patients.facts.update(dict.fromkeys(ids, facts))
    return patients


def _identified(identifiers: list[Resource], codes: ConsentCodes) -> tuple[PatientId, ...]:
    """Return the ids under systems that are known here; of the others nobody can tell whose they are."""
    found: dict[PatientId, None] = {}
    for identifier in identifiers:
        refuse_unless(isinstance(identifier, dict), EntryReason.PATIENT)
        issuer, value = codes.issuer(identifier.get("system")), identifier.get("value")
        if issuer is None or identifier.get("use") == "old":
            continue
        if not isinstance(value, str) or not 0 < len(value.strip()) <= _MAX_ID_CHARACTERS:
            raise Refusal(EntryReason.PATIENT)
        found[PatientId(issuer, value.strip())] = None
    refuse_unless(bool(found), EntryReason.PATIENT_SYSTEM_UNKNOWN)
    return tuple(found)


def _born(resource: Resource) -> date | None:
    """Return the birth date; of a year or a month the last day, for that protects longest."""
    value = resource.get("birthDate")
    if value is None:
        return None
    if isinstance(value, str) and value.replace("-", "").isascii():
        parts = value.split("-")
        if len(parts) < 3 and all(part.isdigit() for part in parts) and len(parts[0]) == 4:
            year, month = int(parts[0]), int(parts[1]) if len(parts) > 1 else 12
            refuse_unless(year > 0 and 1 <= month <= 12, EntryReason.DATE)
            return date(year, month, calendar.monthrange(year, month)[1])
    return day_of(value, EntryReason.DATE)


def _deceased(resource: Resource, today: date) -> date | None:
    """Return the day of death; where only the fact is stated, today: what was decided before stands."""
    if "deceasedDateTime" in resource:
        return day_of(resource["deceasedDateTime"], EntryReason.DATE)
    flag = resource.get("deceasedBoolean", False)
    refuse_unless(isinstance(flag, bool), EntryReason.PATIENT)
    return today if flag else None
