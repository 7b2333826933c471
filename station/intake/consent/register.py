"""The consent register in intake's database, and the state of it that compute gets.

Each function works within the caller's transaction.
"""

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from policies.documents import canonical_json, digest_of
from station.handover import ConsentContent
from station.intake import outbox
from station.intake.audit import IntakeEvent, record
from station.intake.consent.register_file import Entry, Patient, decision_of, merge, resolve
from station.intake.consent.tables import ConsentRow, ConsentSourceRow
from station.intake.outcomes import ConsentReport
from station.intake.schema import PatientRow

_THE_SOURCE = 1


def replace(session: Session, read: list[Entry], *, source_date: datetime, now: datetime) -> None:
    """Take a register that was read as the new state; objections it forgot stay."""
    state = merge(_entries(session), read)
    session.execute(delete(ConsentRow))
    for entry in state:
        session.add(
            ConsentRow(
                patient_id=entry.patient_id, purpose=entry.purpose, decision=entry.decision, date=entry.date
            )
        )
    source = session.get(ConsentSourceRow, _THE_SOURCE)
    if source is None:
        session.add(ConsentSourceRow(id=_THE_SOURCE, source_date=source_date, sequence=0))
    else:
        source.source_date = source_date
    session.flush()
    fields: dict[str, str | int] = {"entries": len(state), "source_date": source_date.isoformat()}
    record(session, IntakeEvent.CONSENT_IMPORTED, fields, now=now)


def hand_over(session: Session, *, now: datetime) -> ConsentReport | None:
    """Put the state in the outbox when it differs from the last one; None before the first import.

    Also due after new patients came in: the register may hold decisions of theirs already.
    """
    source = session.get(ConsentSourceRow, _THE_SOURCE)
    if source is None:
        return None
    entries = _entries(session)
    patients = [
        Patient(row.pseudonym, row.issuer, row.patient_id) for row in session.scalars(select(PatientRow))
    ]
    records, ambiguous = resolve(entries, patients)
    content = ConsentContent(
        consent_sequence=source.sequence + 1, source_date=source.source_date, records=tuple(records)
    )
    digest = digest_of(canonical_json(content.model_dump(mode="json", exclude={"consent_sequence"})))
    if digest != source.handed_over:
        outbox.enqueue(session, content, len(records), now=now)
        source.sequence += 1
        source.handed_over = digest
    return ConsentReport(len(entries), len(records), ambiguous, source.sequence)


def source_of(session: Session) -> tuple[int, datetime | None]:
    """Return the number of the last state and the moment its source was read."""
    source = session.get(ConsentSourceRow, _THE_SOURCE)
    return (source.sequence, source.source_date) if source is not None else (0, None)


def _entries(session: Session) -> list[Entry]:
    return [
        # A word this version does not know is no consent.
        Entry(row.patient_id, row.purpose, decision_of(row.decision) or "none", row.date)
        for row in session.scalars(select(ConsentRow))
    ]
