"""What the audit says of releases that wait for a person."""

from typing import Final

from station.audit.events import AuditEvent, AuditRecord
from station.egress.release import Release
from station.egress.review.reviews import ReviewTerms
from station.egress.review.tables import ReviewRow

STATION: Final = "station:compute"


def release_event(
    event: AuditEvent,
    release: Release,
    terms: ReviewTerms,
    codes: tuple[str, ...],
    row: ReviewRow | None = None,
) -> AuditRecord:
    """Say that a release waits (with its row), or that it was refused (with the codes)."""
    numbers = {"round": release.round}
    detail = f"stage {release.stage} under policy {terms.policy[0]} v{terms.policy[1]}"
    if row is not None:
        numbers |= {"review": row.number, "people": row.people, "arrays_bytes": row.arrays_size or 0}
        detail += f", document {row.document_digest}, arrays {row.arrays_digest or 'none'}"
    return AuditRecord(
        event=event,
        actor=STATION,
        outcome="refused" if codes else "success",
        on_behalf_of=terms.on_behalf_of,
        purpose=terms.purpose,
        object=release.order_digest,
        codes=codes,
        numbers=numbers,
        detail=detail,
    )


def word_event(row: ReviewRow, operator: str, said: str, missing: int) -> AuditRecord:
    """Say what a person said of a review, and how many more have to."""
    return AuditRecord(
        event=AuditEvent.REVIEW_WORD,
        actor=f"operator:{operator}",
        on_behalf_of=row.requester,
        purpose=row.purpose,
        object=row.order_digest,
        numbers={"review": row.number, "round": row.round, "missing": missing},
        detail=said,
    )


def end_event(event: AuditEvent, row: ReviewRow, actor: str, why: str) -> AuditRecord:
    """Say that a review ended without a release, with the code its row has by now."""
    return AuditRecord(
        event=event,
        actor=actor,
        outcome="refused",
        on_behalf_of=row.requester,
        purpose=row.purpose,
        object=row.order_digest,
        codes=() if row.code is None else (row.code,),
        numbers={"review": row.number, "round": row.round},
        detail=f"review {row.number} stage {row.stage}: {why}",
    )
