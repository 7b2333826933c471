"""What becomes of a file, decided from its worker's answer and everything known before.

Each function works within the caller's transaction. A study belongs to one patient. When its files disagree, all of it is quarantined: files of the same batch, files that come
later, and what was handed over from earlier batches is removed. A person settles it (`quarantine`).
"""

from collections import Counter
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from station.intake import removals
from station.intake.books import Books
from station.intake.merges import register
from station.intake.outcomes import BatchReport, FileOutcome, IntakeReason
from station.intake.schema import BatchRow, FileRow, InstanceRow, PatientRow, StudyRow
from station.intake.spool import StagedBatch
from station.intake.workers import Refused, Taken
from station.intake.workers.messages import Answer

CLEAR, DISPUTED, SETTLED = "clear", "disputed", "settled"


def record_outcome(session: Session, books: Books, batch: str, name: str, answer: Answer) -> FileRow:
    """Record what became of one file of a batch."""
    row = FileRow(batch=batch, name=name, outcome=FileOutcome.QUARANTINED.value, decided_at=books.clock())
    match answer:
        case Taken():
            answer = under_surviving(session, answer)
            row.study_uid = answer.record.study_uid
            refused = _contradiction(session, books, batch, answer)
            if refused is not None:
                row.reason = refused.value
            elif _is_known(session, answer):
                row.outcome = FileOutcome.DUPLICATE.value
            else:
                row.outcome = FileOutcome.ACCEPTED.value
                remember(session, answer, books.clock())
        case Refused():
            row.reason, row.study_uid = answer.reason, answer.study_uid
        case _:
            # A worker that answers what it was not asked.
            row.reason = IntakeReason.PROCESSING_CRASHED.value
    session.add(row)
    session.flush()
    return row


def under_surviving(session: Session, taken: Taken) -> Taken:
    """Return what a worker answered under the pseudonym that counts: it may have begun before a merge was told."""
    patient = register.surviving(session, taken.record.patient)
    if patient == taken.record.patient:
        return taken
    issuer, patient_id = register.aliases(session).get(
        (taken.issuer, taken.patient_id), (taken.issuer, taken.patient_id)
    )
    record = taken.record.model_copy(update={"patient": patient})
    return taken.model_copy(update={"record": record, "issuer": issuer, "patient_id": patient_id})


def _contradiction(session: Session, books: Books, batch: str, taken: Taken) -> IntakeReason | None:
    """Tell what speaks against an instance in what is known already."""
    record = taken.record
    known = session.get(InstanceRow, (record.collection, record.sop_instance_uid))
    if known is not None and known.source_digest == taken.source:
        # The very same file: whatever was merged or set since, it is the instance that was taken then.
        return None
    study = session.get(StudyRow, record.study_uid)
    if study is not None and (study.standing == DISPUTED or study.patient != record.patient):
        if study.standing == CLEAR:
            _dispute(session, books, batch, study)
        return IntakeReason.STUDY_PATIENT_MISMATCH
    if removals.is_removed(session, record.collection, record.sop_instance_uid):
        return IntakeReason.INSTANCE_REMOVED
    if known is not None and known.file != record.file:
        return IntakeReason.INSTANCE_CONFLICT
    return None


def _dispute(session: Session, books: Books, batch: str, study: StudyRow) -> None:
    """Take a study back whole: its instances from compute, its files of this batch to quarantine."""
    study.standing = DISPUTED
    rows = list(session.scalars(select(InstanceRow).where(InstanceRow.study_uid == study.study_uid)))
    removals.take_out(session, books, rows, "quarantined")
    session.execute(
        update(FileRow)
        .where(
            FileRow.batch == batch,
            FileRow.study_uid == study.study_uid,
            FileRow.outcome != FileOutcome.QUARANTINED.value,
        )
        .values(
            outcome=FileOutcome.QUARANTINED.value,
            reason=IntakeReason.STUDY_PATIENT_MISMATCH.value,
            decided_at=books.clock(),
        )
    )


def _is_known(session: Session, taken: Taken) -> bool:
    record = taken.record
    return session.get(InstanceRow, (record.collection, record.sop_instance_uid)) is not None


def remember(session: Session, taken: Taken, now: datetime) -> None:
    """Add an instance, and its patient and study where they are new; a known instance is replaced."""
    record = taken.record
    remember_patient(session, taken)
    if session.get(StudyRow, record.study_uid) is None:
        session.add(
            StudyRow(
                study_uid=record.study_uid,
                patient=record.patient,
                accession=taken.accession,
                study_date=taken.study_date,
                standing=CLEAR,
            )
        )
        session.flush()
    session.merge(
        InstanceRow(
            collection=record.collection,
            sop_instance_uid=record.sop_instance_uid,
            study_uid=record.study_uid,
            file=record.file,
            record=record.model_dump(mode="json"),
            outbox=None,
            source_digest=taken.source,
            added_at=now,
        )
    )


def remember_patient(session: Session, taken: Taken) -> None:
    """Add a file's patient where it is new."""
    if session.get(PatientRow, taken.record.patient) is None:
        session.add(
            PatientRow(pseudonym=taken.record.patient, issuer=taken.issuer, patient_id=taken.patient_id)
        )
        session.flush()


def batch_report(session: Session, batch: str) -> BatchReport | None:
    """Return how far a batch is, or None where it is not known."""
    row = session.get(BatchRow, batch)
    if row is None:
        return None
    counted = session.execute(
        select(FileRow.outcome, FileRow.reason, func.count())
        .where(FileRow.batch == batch)
        .group_by(FileRow.outcome, FileRow.reason)
    ).all()
    by_outcome: Counter[str] = Counter()
    quarantined: dict[str, int] = {}
    for outcome, reason, count in counted:
        if outcome == FileOutcome.QUARANTINED:
            quarantined[str(reason)] = count
        else:
            by_outcome[outcome] += count
    return BatchReport(
        batch=batch,
        collection=row.collection,
        files=row.files,
        skipped=row.skipped,
        accepted=by_outcome[FileOutcome.ACCEPTED] + by_outcome[FileOutcome.RELEASED],
        duplicates=by_outcome[FileOutcome.DUPLICATE],
        quarantined=quarantined,
        discarded=by_outcome[FileOutcome.DISCARDED] + by_outcome[FileOutcome.EXPIRED],
        finished_at=row.finished_at,
    )


def start_batch(session: Session, batch: StagedBatch, collection: str) -> None:
    """Record a batch that was not known."""
    card = batch.card
    session.add(
        BatchRow(
            id=batch.name,
            collection=collection,
            files=card.files,
            skipped=card.skipped,
            received_at=card.received_at,
            source=card.source.value,
        )
    )


def finish_batch(session: Session, batch: str, now: datetime) -> None:
    """Record that nothing of a batch is left."""
    session.get_one(BatchRow, batch).finished_at = now
