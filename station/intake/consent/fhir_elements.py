"""Elements of FHIR resources, taken apart strictly: what is not as expected refuses its entry by a reason."""

import re
from collections.abc import Collection, Sequence
from datetime import date
from enum import StrEnum
from typing import Any

from policies.errors import DataError

Resource = dict[str, Any]
_SHOWN = 20
_DAY = re.compile(r"(\d{4}-\d{2}-\d{2})(?:T[0-9:.]{5,20}(?:Z|[+-]\d{2}:\d{2}))?")


class EntryReason(StrEnum):
    """Why an entry of a FHIR register cannot be read."""

    EMPTY = "empty"
    RESOURCE_TYPE = "resource-type"
    UNKNOWN_ELEMENT = "unknown-element"
    MODIFIER_EXTENSION = "modifier-extension"
    STATUS = "status"
    SCOPE = "scope"
    PATIENT = "patient"
    PATIENT_NOT_IN_FILE = "patient-not-in-file"
    PATIENT_SYSTEM_UNKNOWN = "patient-system-unknown"
    DATE = "date"
    PERFORMER = "performer"
    POLICY_RULE = "policy-rule"
    PROVISION_TYPE = "provision-type"
    PURPOSE = "purpose"
    PURPOSE_UNKNOWN = "purpose-unknown"
    PERIOD = "period"
    OBJECTION_ENDS = "objection-ends"
    PERMIT_INSIDE_DENY = "permit-inside-deny"
    TOO_DEEP = "too-deep"
    NOT_VERIFIED = "not-verified"
    STATES_NOTHING = "states-nothing"


class Refusal(Exception):  # noqa: N818 - a decision about one entry, collected by its reader
    """One entry cannot be read."""

    def __init__(self, reason: EntryReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class ConsentEntryError(DataError):
    """A FHIR register cannot be read; nothing of it was imported.

    Attributes:
        problems: (index of the entry from 1, why), in order; 0 for the file as a whole.
    """

    def __init__(self, problems: Sequence[tuple[int, EntryReason]]) -> None:
        shown = "; ".join(f"entry {index}: {reason}" for index, reason in problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        super().__init__(
            f"consent register: {shown}{more}",
            hint="Correct the entries at their source, or write down their codes; nothing was imported.",
        )
        self.problems = tuple(problems)


def refuse_unless(holds: bool, reason: EntryReason) -> None:
    """Refuse the entry unless a condition holds.

    Raises:
        Refusal: it does not.
    """
    if not holds:
        raise Refusal(reason)


def word_of(value: object) -> str:
    """Return a text as it is, and an empty one for anything else."""
    return value if isinstance(value, str) else ""


def check_elements(resource: Resource, known: Collection[str]) -> None:
    """Refuse elements that change the meaning or that this version does not know.

    Raises:
        Refusal: there is one.
    """
    refuse_unless("modifierExtension" not in resource, EntryReason.MODIFIER_EXTENSION)
    refuse_unless(set(resource) <= set(known), EntryReason.UNKNOWN_ELEMENT)


def items(value: object, reason: EntryReason) -> list[Resource]:
    """Return a repeated element's items; none where it is absent.

    Raises:
        Refusal: it is no list of objects, or an item has a modifier extension.
    """
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Refusal(reason)
    for item in value:
        refuse_unless("modifierExtension" not in item, EntryReason.MODIFIER_EXTENSION)
    return value


def codings(concept: object, reason: EntryReason) -> list[tuple[object, object]]:
    """Return (system, code) of a CodeableConcept.

    Raises:
        Refusal: it has none.
    """
    found = items(concept.get("coding"), reason) if isinstance(concept, dict) else []
    refuse_unless(bool(found), reason)
    return [(coding.get("system"), coding.get("code")) for coding in found]


def day_of(value: object, reason: EntryReason) -> date:
    """Return the day of a FHIR date or dateTime that is precise to the day, as it was written down.

    Raises:
        Refusal: it is none, or a year or month only.
    """
    match = _DAY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Refusal(reason)
    try:
        return date.fromisoformat(match[1])
    except ValueError:
        raise Refusal(reason) from None
