"""Clinical rows in intake's database, and what compute gets of them once their study is here.

Each function works within the caller's transaction.
"""

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.documents import canonical_json, digest_of
from policies.profiles import load_profile
from station.handover import ClinicalContent, ClinicalRow
from station.intake import outbox
from station.intake.audit import IntakeEvent, record
from station.intake.clinical.export import ClinicalEntry, values_at
from station.intake.clinical.tables import ClinicalEntryRow
from station.intake.schema import PatientRow, StudyRow

_ROWS_PER_ENTRY = 2000


def store(
    session: Session, collection: str, profile: str, entries: list[ClinicalEntry], *, now: datetime
) -> None:
    """Add or correct the rows of an export; rows of earlier exports that it does not name stay."""
    for entry in entries:
        row = session.get(ClinicalEntryRow, (collection, entry.patient_id, entry.accession))
        if row is None:
            row = ClinicalEntryRow(
                collection=collection, patient_id=entry.patient_id, accession=entry.accession
            )
            session.add(row)
        row.profile = profile
        row.birth_date = entry.birth_date
        row.fields = dict(entry.fields)
    session.flush()
    fields: dict[str, str | int] = {"collection": collection, "profile": profile, "rows": len(entries)}
    record(session, IntakeEvent.CLINICAL_IMPORTED, fields, now=now)


def hand_over(session: Session, *, now: datetime) -> int:
    """Put rows that are new or changed and whose study is here in the outbox; returns how many export rows."""
    due: dict[tuple[str, str], list[ClinicalRow]] = {}
    handed = 0
    for row in session.scalars(select(ClinicalEntryRow)):
        linked = list(_linked(session, row))
        if not linked:
            continue
        digest = digest_of(canonical_json([entry.model_dump(mode="json") for entry in linked]))
        if digest == row.handed_over:
            continue
        row.handed_over = digest
        handed += 1
        due.setdefault((row.collection, row.profile), []).extend(linked)
    for (collection, profile), rows in sorted(due.items()):
        for start in range(0, len(rows), _ROWS_PER_ENTRY):
            part = tuple(rows[start : start + _ROWS_PER_ENTRY])
            content = ClinicalContent(collection=collection, profile=profile, rows=part)
            outbox.enqueue(session, content, len(part), now=now)
    return handed


def count_linked(session: Session, collection: str) -> int:
    """Return how many of a collection's rows have their study here."""
    rows = session.scalars(select(ClinicalEntryRow).where(ClinicalEntryRow.collection == collection))
    return sum(row.handed_over is not None for row in rows)


def _linked(session: Session, row: ClinicalEntryRow) -> Iterator[ClinicalRow]:
    """Yield the row for each study of (patient, accession); nothing where the id is two patients' (see consent)."""
    studies = session.execute(
        select(StudyRow.study_uid, StudyRow.patient, StudyRow.study_date)
        .join(PatientRow, PatientRow.pseudonym == StudyRow.patient)
        .where(PatientRow.patient_id == row.patient_id, StudyRow.accession == row.accession)
        .order_by(StudyRow.study_uid)
    ).all()
    if len({patient for _, patient, _ in studies}) != 1:
        return
    profile = load_profile(row.profile)
    entry = ClinicalEntry(row.patient_id, row.accession, row.birth_date, dict(row.fields))
    for study_uid, patient, study_date in studies:
        yield ClinicalRow(patient=patient, study_uid=study_uid, values=values_at(entry, profile, study_date))
