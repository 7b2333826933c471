"""What becomes of files and imports, in counts and codes: values that hold nothing of a file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from station.pseudonymisation.faults import PseudonymisationFault


class FileOutcome(StrEnum):
    """What became of one file."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
    RELEASED = "released"
    DISCARDED = "discarded"
    EXPIRED = "expired"


class IntakeReason(StrEnum):
    """Why a file is in quarantine, beside the reasons of `PseudonymisationFault`."""

    TOO_LARGE = "too-large"
    SOP_CLASS_NOT_ACCEPTED = "sop-class-not-accepted"
    OWN_PREDICTION = "own-prediction"
    PIXELS_MISSING = "pixels-missing"
    STUDY_PATIENT_MISMATCH = "study-patient-mismatch"
    INSTANCE_CONFLICT = "instance-conflict"
    INSTANCE_REMOVED = "instance-removed"
    PROCESSING_CRASHED = "processing-crashed"
    PROCESSING_TIMEOUT = "processing-timeout"


Reason = IntakeReason | PseudonymisationFault


@dataclass(frozen=True, slots=True)
class BatchReport:
    """How far a batch is.

    Attributes:
        files: how many files the batch holds.
        skipped: entries of the source that were not plain files.
        accepted: taken up, those released from quarantine among them.
        quarantined: counts by reason code.
        discarded: thrown away from quarantine, by a person or because their term was over.
        finished_at: None while files are left.
    """

    batch: str
    collection: str
    files: int
    skipped: int
    accepted: int
    duplicates: int
    quarantined: dict[str, int] = field(default_factory=dict)
    discarded: int = 0
    finished_at: datetime | None = None

    @property
    def done(self) -> int:
        """How many files have been dealt with."""
        return self.accepted + self.duplicates + self.discarded + sum(self.quarantined.values())


@dataclass(frozen=True, slots=True)
class ConsentReport:
    """What an import of the consent register did.

    Attributes:
        entries: decisions in the new state, of all patients of the register.
        handed_over: decisions of patients whose images are here.
        ambiguous_ids: patient ids that two issuers gave out; only objections count for them.
        sequence: the state's number in the handover; 0 before the first.
    """

    entries: int
    handed_over: int
    ambiguous_ids: int
    sequence: int


@dataclass(frozen=True, slots=True)
class IntakeStatus:
    """What is there, in counts."""

    batches_waiting: int
    patients: int
    studies: int
    instances: int
    quarantined: dict[str, int]
    consent_sequence: int
    consent_source_date: datetime | None
    handover_sequence: int
    key_id: str
    key_version: int


Progress = Callable[[int, int], None]
"""Called with (files dealt with, files in the batch)."""
