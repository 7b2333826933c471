"""Intake's audit: a closed list of events in a hash chain of its own, in intake's database.

Fields are counts, digests, batch names and reason codes; never a patient's identity.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy.orm import Session

from policies.documents import format_moment
from policies.refusals import Permitted
from station.audit.chain import Chain, ChainBreak, ChainHead
from station.intake.schema import IntakeAuditRow
from station.storage.database import Database

_CHAIN = Chain("intake-audit", IntakeAuditRow)


class IntakeEvent(StrEnum):
    """Everything intake audits."""

    BATCH_RECEIVED = "intake.batch.received"
    BATCH_FINISHED = "intake.batch.finished"
    CONSENT_IMPORTED = "intake.consent.imported"
    CONSENT_PATIENTS_IMPORTED = "intake.consent.patients-imported"
    CONSENT_SHOWN = "intake.consent.shown"
    USAGE_RESOLVED = "intake.usage.resolved"
    CLINICAL_IMPORTED = "intake.clinical.imported"
    CLINICAL_HISTORY_READ = "intake.clinical.history-read"
    LABELS_IMPORTED = "intake.labels.imported"
    HANDED_OVER = "intake.handed-over"
    INSTANCES_REMOVED = "intake.instances.removed"
    QUARANTINE_SHOWN = "intake.quarantine.shown"
    QUARANTINE_RELEASED = "intake.quarantine.released"
    QUARANTINE_DISCARDED = "intake.quarantine.discarded"
    PATIENTS_MERGED = "intake.patients.merged"
    RETENTION_ENFORCED = "intake.retention.enforced"
    KEY_ROTATED = "intake.key.rotated"


def record(session: Session, event: IntakeEvent, fields: dict[str, str | int], *, now: datetime) -> None:
    """Add an event within the caller's transaction: without it the transaction does not happen (I6)."""
    _CHAIN.append(session, {"at": format_moment(now), "event": event.value, "fields": dict(fields)})


def verify(database: Database, known: ChainHead | None = None) -> Permitted[ChainHead] | ChainBreak:
    """Check the whole chain."""
    with database.read() as session:
        return _CHAIN.verify(session, known)
