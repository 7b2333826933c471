"""Merges in intake's database, and what they do to what is held; each function within the caller's transaction.

From a merge on the surviving patient's pseudonym counts: studies and instances move to it, compute is told, and data of the
old id that come later come out under it. Files that were pseudonymised before keep the old pseudonym inside, and dates shifted
by the old patient's shift: what compute goes by is the handover's records.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from station.handover import InstanceRecord, Merge, MergedContent
from station.intake import outbox
from station.intake.audit import IntakeEvent, record
from station.intake.books import Books
from station.intake.merges.chains import Identity, ToldMerge, add, resolve
from station.intake.schema import InstanceRow, MergeRow, PatientRow, StudyRow

_PER_ENTRY = 2000


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What an import of merges did.

    Attributes:
        told: merges in the file.
        new: those that were not known.
        patients: patients held here whose pseudonym became another's.
    """

    told: int
    new: int
    patients: int


@dataclass(frozen=True, slots=True)
class KnownPatient:
    """A patient whose images are here, under one of the ids the hospital has used for it."""

    pseudonym: str
    issuer: str
    patient_id: str


def table(session: Session) -> dict[Identity, Identity]:
    """Return the merges as they were told."""
    return {
        (row.old_issuer, row.old_id): (row.new_issuer, row.new_id)
        for row in session.scalars(select(MergeRow))
    }


def aliases(session: Session) -> dict[Identity, Identity]:
    """Return every merged (issuer, id), and whom the hospital knows it by now."""
    merges = table(session)
    return {old: resolve(merges, old) for old in merges}


def known_patients(session: Session) -> list[KnownPatient]:
    """Return the patients whose images are here, each under all its ids: registers may still use an old one."""
    patients = [
        KnownPatient(row.pseudonym, row.issuer, row.patient_id) for row in session.scalars(select(PatientRow))
    ]
    here = {patient.pseudonym for patient in patients}
    merged = session.scalars(select(MergeRow).order_by(MergeRow.old_issuer, MergeRow.old_id))
    return patients + [
        KnownPatient(row.new_pseudonym, row.old_issuer, row.old_id)
        for row in merged
        if row.new_pseudonym in here
    ]


def surviving(session: Session, pseudonym: str) -> str:
    """Return the pseudonym that counts for one under which something was made before a merge."""
    row = session.scalar(select(MergeRow).where(MergeRow.old_pseudonym == pseudonym))
    return pseudonym if row is None else row.new_pseudonym


def store(
    session: Session, books: Books, told: list[ToldMerge], pseudonym: Callable[[str, str], str]
) -> MergeReport:
    """Take merges as they were told; again changes nothing.

    Args:
        session: the write transaction.
        books: intake's books.
        told: in order.
        pseudonym: makes the pseudonym of an (issuer, id), merges aside.

    Raises:
        MergeError: they lead back to themselves or part what was merged; nothing is changed.
    """
    before = table(session)
    after = add(before, told)
    now = books.clock()
    new = [old for old in after if old not in before]
    for old in new:
        session.add(
            MergeRow(
                old_issuer=old[0],
                old_id=old[1],
                new_issuer=after[old][0],
                new_id=after[old][1],
                old_pseudonym=pseudonym(*old),
                new_pseudonym=pseudonym(*resolve(after, old)),
                merged_at=now,
            )
        )
    session.flush()
    for row in session.scalars(select(MergeRow)):
        row.new_pseudonym = pseudonym(*resolve(after, (row.old_issuer, row.old_id)))
    session.flush()
    moved = [
        merge for old in after if (merge := _move(session, old, resolve(after, old), pseudonym)) is not None
    ]
    for start in range(0, len(moved), _PER_ENTRY):
        part = tuple(moved[start : start + _PER_ENTRY])
        outbox.enqueue(session, MergedContent(merges=part), len(part), now=now)
    fields: dict[str, str | int] = {"told": len(told), "new": len(new), "patients": len(moved)}
    record(session, IntakeEvent.PATIENTS_MERGED, fields, now=now)
    return MergeReport(told=len(told), new=len(new), patients=len(moved))


def _move(
    session: Session, old: Identity, new: Identity, pseudonym: Callable[[str, str], str]
) -> Merge | None:
    """Move what is held of a patient to the surviving one; None where nothing is."""
    gone = session.get(PatientRow, pseudonym(*old))
    if gone is None:
        return None
    into = pseudonym(*new)
    if session.get(PatientRow, into) is None:
        session.add(PatientRow(pseudonym=into, issuer=new[0], patient_id=new[1]))
        session.flush()
    studies = list(session.scalars(select(StudyRow.study_uid).where(StudyRow.patient == gone.pseudonym)))
    session.execute(update(StudyRow).where(StudyRow.patient == gone.pseudonym).values(patient=into))
    for study in studies:
        for row in session.scalars(select(InstanceRow).where(InstanceRow.study_uid == study)):
            stored = InstanceRecord.model_validate(row.record)
            row.record = stored.model_copy(update={"patient": into}).model_dump(mode="json")
    session.flush()
    merge = Merge(patient=gone.pseudonym, into=into)
    session.delete(gone)
    session.flush()
    return merge
