"""What the register holds: decisions as they were stated, and what is known of the patients who made them.

Values only. A decision is about one patient and one purpose, was made on a day by the patient or for the patient, and
may be bound to a period. An objection has no end of its own: it stands until a consent takes its place.
"""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Literal

from policies.policy import ConsentPurpose


class Purpose(StrEnum):
    """What patients are asked about, each apart; stored apart also where they are asked once.

    The supply to the registry is the station's own condition for everything else; policies name the three others.
    """

    REGISTRY = "registry"
    RESEARCH_PARTICIPANTS = ConsentPurpose.RESEARCH_PARTICIPANTS.value
    RESEARCH_THIRD_PARTIES = ConsentPurpose.RESEARCH_THIRD_PARTIES.value
    RESEARCH_COMMERCIAL = ConsentPurpose.RESEARCH_COMMERCIAL.value


RESEARCH = tuple(purpose for purpose in Purpose if purpose is not Purpose.REGISTRY)


class GivenBy(StrEnum):
    """Who decided: the patient, a parent with authority, or another who represents the patient by law."""

    PATIENT = "patient"
    PARENT = "parent"
    REPRESENTATIVE = "representative"


Word = Literal["consent", "objection", "none"]
WORDS: dict[str, Word] = {"consent": "consent", "objection": "objection", "none": "none"}


@dataclass(frozen=True, slots=True)
class PatientId:
    """A patient as the hospital names them.

    Attributes:
        issuer: who gave the id out; empty where the source does not say.
    """

    issuer: str
    patient_id: str


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision, as the source states it.

    Attributes:
        made: the day it was made.
        valid_from, valid_until: the days from and until which it counts, both included; None for no such bound.
    """

    patient: PatientId
    purpose: Purpose
    word: Word
    made: date
    given_by: GivenBy = GivenBy.PATIENT
    valid_from: date | None = None
    valid_until: date | None = None


@dataclass(frozen=True, slots=True)
class PatientFacts:
    """What decides whose word counts. Stays in intake.

    Attributes:
        deceased: the day of death; None for the living and where nothing is known.
    """

    birth_date: date | None = None
    deceased: date | None = None


@dataclass(frozen=True, slots=True)
class Register:
    """What one file stated.

    Attributes:
        passed_over: entries that state nothing now (drafts, terminated, about treatment).
    """

    decisions: tuple[Decision, ...]
    facts: dict[PatientId, PatientFacts]
    passed_over: int = 0
