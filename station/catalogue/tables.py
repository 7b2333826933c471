"""Tables of the catalogue: a copy of what the handover log says, made again from it at any time.

`CatalogueState` holds one row: the last entry taken up, by sequence and digest, and where the consent state came from.
"""

from datetime import datetime

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from station.storage import Base, UtcTime

SINGLE_ROW = 1


class CatalogueState(Base):
    """How far the handover log was read; one row."""

    __tablename__ = "catalogue_state"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sequence: Mapped[int]
    digest: Mapped[str] = mapped_column(String(71))
    consent_sequence: Mapped[int | None]
    consent_source_date: Mapped[datetime | None] = mapped_column(UtcTime())


class Instance(Base):
    """One pseudonymised instance in one collection."""

    __tablename__ = "catalogue_instances"

    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    file: Mapped[str] = mapped_column(String(71))
    size_bytes: Mapped[int]
    patient: Mapped[str] = mapped_column(String(32), index=True)
    study_uid: Mapped[str] = mapped_column(String(64), index=True)
    series_uid: Mapped[str] = mapped_column(String(64))
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    modality: Mapped[str] = mapped_column(String(16))
    body_part: Mapped[str] = mapped_column(String(16))
    view_position: Mapped[str] = mapped_column(String(16))


class Clinical(Base):
    """The agreed clinical fields of one study, per collection and minimal-dataset profile."""

    __tablename__ = "catalogue_clinical"

    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    profile: Mapped[str] = mapped_column(String(64), primary_key=True)
    patient: Mapped[str] = mapped_column(String(32), primary_key=True)
    study_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    fields: Mapped[dict[str, str | int | float | bool | None]] = mapped_column(JSON)


class ConsentDecision(Base):
    """What one patient decided for one purpose."""

    __tablename__ = "catalogue_consent"

    patient: Mapped[str] = mapped_column(String(32), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(64), primary_key=True)
    decision: Mapped[str] = mapped_column(String(16))
    date: Mapped[str] = mapped_column(String(10))
