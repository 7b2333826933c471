"""What the audit says of an entry of the handover log: that it was taken up, with what, or that it was not."""

from station.audit.events import AuditEvent, AuditRecord
from station.catalogue.takeup import Taken
from station.handover import ConsentContent, VerifiedEntry

_ACTOR = "station:intake"


def taken_up(entry: VerifiedEntry, taken: Taken) -> AuditRecord:
    """Return the event of an entry that becomes part of the catalogue; a consent state is an event of its own."""
    numbers = {
        "sequence": entry.sequence,
        "instances": taken.instances,
        "clinical_rows": taken.clinical_rows,
        "labels": taken.labels,
        "removed": taken.removed,
        "merged": taken.merged,
    }
    event = AuditEvent.HANDOVER_TAKEN_UP
    if isinstance(entry.content, ConsentContent):
        event = AuditEvent.CONSENT_UPDATED
        numbers = {"sequence": entry.sequence, "consent_sequence": entry.content.consent_sequence}
    return AuditRecord(
        event=event, actor=_ACTOR, object=entry.digest, numbers=numbers, detail=entry.content.kind
    )


def not_taken_up(sequence: int) -> AuditRecord:
    """Return the event of an entry that does not verify or does not follow."""
    return AuditRecord(
        event=AuditEvent.HANDOVER_REFUSED, actor=_ACTOR, outcome="refused", numbers={"sequence": sequence}
    )
