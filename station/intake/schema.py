"""Intake's tables: what came in and what was handed over. Identified data; they never leave intake's folder.

The registers have theirs beside them: `consent.tables`, `clinical.tables`.
"""

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, LargeBinary, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from station.audit.chain import ChainedRow
from station.storage.schema import UtcTime


class IntakeBase(DeclarativeBase):
    """Base of intake's tables."""


class BatchRow(IntakeBase):
    """A batch that was spooled; `source` is a `SourceKind`."""

    __tablename__ = "batches"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    collection: Mapped[str] = mapped_column(String(64))
    files: Mapped[int]
    skipped: Mapped[int]
    received_at: Mapped[datetime] = mapped_column(UtcTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcTime)
    source: Mapped[str] = mapped_column(String(16), default="folder")


class FileRow(IntakeBase):
    """What became of one spooled file; written before the file leaves the spool.

    `decided_at` is when it came to this, `decided_by` who said so where a person did (quarantine).
    """

    __tablename__ = "files"

    batch: Mapped[str] = mapped_column(ForeignKey("batches.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    outcome: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(40))
    study_uid: Mapped[str | None] = mapped_column(String(64), index=True)
    decided_at: Mapped[datetime | None] = mapped_column(UtcTime)
    decided_by: Mapped[str | None] = mapped_column(String(64))


class PatientRow(IntakeBase):
    """A patient whose images came in: the pseudonym and who it is."""

    __tablename__ = "patients"

    pseudonym: Mapped[str] = mapped_column(String(32), primary_key=True)
    issuer: Mapped[str] = mapped_column(String(64))
    patient_id: Mapped[str] = mapped_column(String(64), index=True)


class StudyRow(IntakeBase):
    """A study that came in, by its pseudonymous UID, with what clinical rows are linked on.

    `standing`: `clear`; `disputed` where its files disagree on the patient; `settled` once a person has said whose it is.
    """

    __tablename__ = "studies"

    study_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    patient: Mapped[str] = mapped_column(ForeignKey("patients.pseudonym"))
    accession: Mapped[str] = mapped_column(String(64), index=True)
    study_date: Mapped[str] = mapped_column(String(10))
    standing: Mapped[str] = mapped_column(String(16), default="clear")


class InstanceRow(IntakeBase):
    """An instance that was pseudonymised; `outbox` names the entry that hands it over.

    `source_digest` is of the identified file: the same file again is the same instance, whatever rules came in between.
    """

    __tablename__ = "instances"

    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    study_uid: Mapped[str] = mapped_column(ForeignKey("studies.study_uid"))
    file: Mapped[str] = mapped_column(String(71))
    record: Mapped[dict[str, object]] = mapped_column(JSON)
    outbox: Mapped[int | None] = mapped_column(ForeignKey("outbox.id"), index=True)
    source_digest: Mapped[str | None] = mapped_column(String(71))
    added_at: Mapped[datetime | None] = mapped_column(UtcTime)


class RemovedRow(IntakeBase):
    """An instance that is used no longer, and comes back through a person only. Its file goes when its term is over.

    `collection` is ``*`` for one that was rejected at its source before it came here.
    """

    __tablename__ = "removed"

    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    reason: Mapped[str] = mapped_column(String(16))
    file: Mapped[str | None] = mapped_column(String(71), index=True)
    removed_at: Mapped[datetime] = mapped_column(UtcTime)


class MergeRow(IntakeBase):
    """A patient whom the hospital knows by another (issuer, id) since a merge.

    `new_pseudonym` is of the patient at the end of the chain; `new_issuer` and `new_id` are the merge as it was told.
    """

    __tablename__ = "merges"

    old_issuer: Mapped[str] = mapped_column(String(64), primary_key=True)
    old_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    new_issuer: Mapped[str] = mapped_column(String(64))
    new_id: Mapped[str] = mapped_column(String(64))
    old_pseudonym: Mapped[str] = mapped_column(String(32), unique=True)
    new_pseudonym: Mapped[str] = mapped_column(String(32))
    merged_at: Mapped[datetime] = mapped_column(UtcTime)


class OutboxRow(IntakeBase):
    """An entry that must reach the handover log, and the sequence it got there."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    operation: Mapped[str] = mapped_column(String(80), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    content: Mapped[bytes | None] = mapped_column(LargeBinary)
    sequence: Mapped[int | None] = mapped_column(index=True)


class IntakeAuditRow(ChainedRow):
    """Intake's own hash-chained audit; among intake's tables, not compute's."""

    metadata = IntakeBase.metadata
    __tablename__ = "intake_audit"
