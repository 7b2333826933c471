"""Takes a batch from the spool: each file pseudonymised and handed over, already there, or in quarantine.

Order for one file, so that a crash at any point is healed by doing it again (I8):
1. the pseudonymised file is durable in the handover folder (nobody reads it before an entry names it);
2. one transaction records the outcome, the instance, its study and its patient;
3. the identified file leaves the spool: removed, or moved to quarantine.

Nothing of a file's content reaches a log line, an error or a report.
"""

import os
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from policies.documents import digest_of
from policies.errors import StateError
from station.handover import InstanceRecord, instance_path, make_folder
from station.intake import spool
from station.intake.outcomes import BatchReport, FileOutcome, IntakeReason, Progress, Reason
from station.intake.paths import IntakePaths
from station.intake.schema import BatchRow, FileRow, InstanceRow, PatientRow, StudyRow
from station.intake.settings import IntakeSettings
from station.pseudonymisation.engine import PseudonymisedInstance, Pseudonymiser
from station.pseudonymisation.faults import PseudonymisationError
from station.pseudonymisation.reading import contain, read_dicom, read_header
from station.storage.database import Database
from station.storage.files import move_durably, remove_durably, write_atomically

_IDENTITY = ("StudyInstanceUID", "PatientID", "IssuerOfPatientID")


@dataclass(frozen=True, slots=True)
class _Taken:
    """A file that was pseudonymised and is durable in the handover folder."""

    record: InstanceRecord
    issuer: str
    patient_id: str
    accession: str
    study_date: str


@dataclass(frozen=True, slots=True)
class _Refused:
    """A file that goes to quarantine."""

    reason: Reason
    study_uid: str | None = None


class BatchProcessor:
    """Processes the spool's batches, one file after another."""

    def __init__(
        self, paths: IntakePaths, settings: IntakeSettings, database: Database, pseudonymiser: Pseudonymiser
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._database = database
        self._pseudonymiser = pseudonymiser

    def process(self, batch: spool.StagedBatch, collection: str, progress: Progress) -> None:
        """Deal with every file that is left in a batch; a batch that was cut off goes on where it stopped."""
        self._finish_cut_off(batch)
        names = spool.files_of(self._paths.spool, batch.name)
        disputed = self._disputed_studies(batch.name, names)
        done = batch.card.files - len(names)
        for name in names:
            result = self._take(self._paths.spool / batch.name / name, collection, disputed)
            with self._database.write() as session:
                outcome = _record(session, batch.name, name, result)
            self._leave_spool(batch.name, name, outcome)
            done += 1
            progress(done, batch.card.files)

    def _finish_cut_off(self, batch: spool.StagedBatch) -> None:
        with self._database.read() as session:
            rows = {
                row.name: row for row in session.scalars(select(FileRow).where(FileRow.batch == batch.name))
            }
        for name in spool.files_of(self._paths.spool, batch.name):
            if name in rows:
                self._leave_spool(batch.name, name, rows[name])

    def _disputed_studies(self, batch: str, names: list[str]) -> set[str]:
        """Return the studies whose files do not agree on the patient, by pseudonymous UID.

        All files of such a study are quarantined, in this batch and later ones, until a person has looked.
        """
        patients: dict[str, set[str]] = {}
        for name in names:
            try:
                with _open(self._paths.spool / batch / name) as file:
                    dataset = read_header(file, _IDENTITY)
                study, patient = contain(partial(self._study_and_patient, dataset))
                patients.setdefault(study, set()).add(patient)
            except PseudonymisationError:
                # It gets its reason when its turn comes.
                continue
        with self._database.read() as session:
            known = session.scalars(
                select(FileRow.study_uid).where(FileRow.reason == IntakeReason.STUDY_PATIENT_MISMATCH.value)
            )
            disputed = {study for study in known if study}
        return disputed | {study for study, found in patients.items() if len(found) > 1}

    def _take(self, path: Path, collection: str, disputed: set[str]) -> _Taken | _Refused:
        try:
            dataset = self._read(path)
            sop_class, accession, study_date = contain(partial(_linking_values, dataset))
            if sop_class and sop_class not in self._settings.sop_classes:
                return _Refused(IntakeReason.SOP_CLASS_NOT_ACCEPTED)
            if "PixelData" not in dataset:
                # An image that was cut off before its pixels, or that never had any.
                return _Refused(IntakeReason.PIXELS_MISSING)
            instance = self._pseudonymiser.pseudonymise(dataset)
            issuer, patient_id = contain(partial(self._pseudonymiser.patient_identity, dataset))
            if instance.study_uid in disputed:
                return _Refused(IntakeReason.STUDY_PATIENT_MISMATCH, instance.study_uid)
            record = self._hand_in(collection, instance)
        except _TooLargeError:
            return _Refused(IntakeReason.TOO_LARGE)
        except PseudonymisationError as error:
            return _Refused(error.fault)
        return _Taken(record, issuer[:64], patient_id[:64], accession, study_date)

    def _study_and_patient(self, dataset: Dataset) -> tuple[str, str]:
        study = self._pseudonymiser.remap_uid(str(dataset.get("StudyInstanceUID") or ""))
        return study, self._pseudonymiser.pseudonym(*self._pseudonymiser.patient_identity(dataset))

    def _read(self, path: Path) -> Dataset:
        with _open(path) as file:
            if os.fstat(file.fileno()).st_size > self._settings.max_file_bytes:
                raise _TooLargeError
            return read_dicom(file.read())

    def _hand_in(self, collection: str, instance: PseudonymisedInstance) -> InstanceRecord:
        data = instance.encode()
        digest = digest_of(data)
        target = instance_path(self._paths.handover, digest)
        if not target.exists():
            make_folder(target.parent)
            write_atomically(target, data, 0o640)
        dataset = instance.dataset
        return InstanceRecord(
            file=digest,
            size_bytes=len(data),
            collection=collection,
            patient=instance.patient,
            study_uid=instance.study_uid,
            series_uid=instance.series_uid,
            sop_instance_uid=instance.sop_instance_uid,
            sop_class_uid=str(dataset.SOPClassUID),
            transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
            modality=_code(dataset, "Modality"),
            body_part=_code(dataset, "BodyPartExamined"),
            view_position=_code(dataset, "ViewPosition"),
        )

    def _leave_spool(self, batch: str, name: str, outcome: FileRow) -> None:
        path = self._paths.spool / batch / name
        if outcome.outcome != FileOutcome.QUARANTINED:
            remove_durably(path)
            return
        folder = self._paths.quarantine / str(outcome.reason)
        folder.mkdir(mode=0o700, exist_ok=True)
        move_durably(path, folder / f"{batch}-{name}")


class _TooLargeError(Exception):
    """The file is larger than the settings allow to read."""


def _record(session: Session, batch: str, name: str, result: _Taken | _Refused) -> FileRow:
    """Record one file's outcome in the caller's transaction."""
    refused = _contradiction(session, result) if isinstance(result, _Taken) else result
    if refused is not None:
        row = FileRow(
            batch=batch,
            name=name,
            outcome=FileOutcome.QUARANTINED.value,
            reason=refused.reason.value,
            study_uid=refused.study_uid,
        )
    elif isinstance(result, _Taken):
        new = _remember(session, result)
        outcome = FileOutcome.ACCEPTED if new else FileOutcome.DUPLICATE
        row = FileRow(
            batch=batch, name=name, outcome=outcome.value, reason=None, study_uid=result.record.study_uid
        )
    else:
        raise StateError("intake: a file has neither a result nor a reason")
    session.add(row)
    return row


def _contradiction(session: Session, taken: _Taken) -> _Refused | None:
    """Tell what speaks against an instance in what is known already."""
    record = taken.record
    study = session.get(StudyRow, record.study_uid)
    if study is not None and study.patient != record.patient:
        return _Refused(IntakeReason.STUDY_PATIENT_MISMATCH, record.study_uid)
    known = session.get(InstanceRow, (record.collection, record.sop_instance_uid))
    if known is not None and known.file != record.file:
        return _Refused(IntakeReason.INSTANCE_CONFLICT, record.study_uid)
    return None


def _remember(session: Session, taken: _Taken) -> bool:
    """Add patient, study and instance where they are new; tell whether the instance was."""
    record = taken.record
    if session.get(InstanceRow, (record.collection, record.sop_instance_uid)) is not None:
        return False
    if session.get(PatientRow, record.patient) is None:
        session.add(PatientRow(pseudonym=record.patient, issuer=taken.issuer, patient_id=taken.patient_id))
        session.flush()
    if session.get(StudyRow, record.study_uid) is None:
        session.add(
            StudyRow(
                study_uid=record.study_uid,
                patient=record.patient,
                accession=taken.accession,
                study_date=taken.study_date,
            )
        )
        session.flush()
    session.add(
        InstanceRow(
            collection=record.collection,
            sop_instance_uid=record.sop_instance_uid,
            study_uid=record.study_uid,
            file=record.file,
            record=record.model_dump(mode="json"),
        )
    )
    return True


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
        accepted=by_outcome[FileOutcome.ACCEPTED],
        duplicates=by_outcome[FileOutcome.DUPLICATE],
        quarantined=quarantined,
        finished_at=row.finished_at,
    )


def start_batch(session: Session, batch: spool.StagedBatch, collection: str) -> None:
    """Record a batch that was not known."""
    card = batch.card
    session.add(
        BatchRow(
            id=batch.name,
            collection=collection,
            files=card.files,
            skipped=card.skipped,
            received_at=card.received_at,
        )
    )


def finish_batch(session: Session, batch: str, now: datetime) -> None:
    """Record that nothing of a batch is left."""
    session.get_one(BatchRow, batch).finished_at = now


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")


def _linking_values(dataset: Dataset) -> tuple[str, str, str]:
    """Return SOP Class UID, accession and Study Date as they stand."""
    sop_class, accession, study_date = (
        str(dataset.get(keyword) or "").strip() for keyword in ("SOPClassUID", "AccessionNumber", "StudyDate")
    )
    return sop_class, accession[:64], study_date[:10]


def _code(dataset: Dataset, keyword: str) -> str:
    # The engine lets a CS pass only in its own form, so what is left here is a code or several.
    value = dataset.get(keyword)
    return value.strip() if isinstance(value, str) else ""
