"""Tables of the catalogue: a copy of what the handover log says, made again from it at any time.

`CatalogueState` holds one row: the last entry taken up, by sequence and digest, and where the consent state came from. Two
tables are not a copy: `PublishedCount` is what was told outside, and `SeriesFinding` what a series was found to be.
"""

from datetime import datetime

from sqlalchemy import JSON, Float, ForeignKeyConstraint, Index, String
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
    """One pseudonymised instance in one collection, with how it was acquired.

    The empty string, and None, mean that the file does not say; `image_type` is joined by backslashes, as DICOM writes it.
    """

    __tablename__ = "catalogue_instances"

    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    file: Mapped[str] = mapped_column(String(71), index=True)
    size_bytes: Mapped[int]
    patient: Mapped[str] = mapped_column(String(32), index=True)
    study_uid: Mapped[str] = mapped_column(String(64), index=True)
    series_uid: Mapped[str] = mapped_column(String(64))
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    modality: Mapped[str] = mapped_column(String(16))
    body_part: Mapped[str] = mapped_column(String(16))
    view_position: Mapped[str] = mapped_column(String(16))
    manufacturer: Mapped[str] = mapped_column(String(64), default="")
    model: Mapped[str] = mapped_column(String(64), default="")
    kernel: Mapped[str] = mapped_column(String(64), default="")
    slice_thickness_mm: Mapped[float | None] = mapped_column(Float, default=None)
    study_year: Mapped[int | None] = mapped_column(default=None)
    rows: Mapped[int | None] = mapped_column(default=None)
    columns: Mapped[int | None] = mapped_column(default=None)
    image_type: Mapped[str] = mapped_column(String(80), default="")
    recognizable_face: Mapped[bool | None] = mapped_column(default=None)
    pixels: Mapped[str] = mapped_column(String(16), default="not-inspected")

    __table_args__ = (Index("ix_catalogue_instances_series", "series_uid", "collection"),)


class SeriesCount(Base):
    """How many instances of a series are alike in all that a query asks; made again with each change of the series.

    A query reads this and not the instances, of which there are ten to a thousand times as many.
    """

    __tablename__ = "catalogue_series"

    id: Mapped[int] = mapped_column(primary_key=True)
    collection: Mapped[str] = mapped_column(String(64))
    patient: Mapped[str] = mapped_column(String(32), index=True)
    study_uid: Mapped[str] = mapped_column(String(64))
    series_uid: Mapped[str] = mapped_column(String(64))
    modality: Mapped[str] = mapped_column(String(16))
    body_part: Mapped[str] = mapped_column(String(16))
    view_position: Mapped[str] = mapped_column(String(16))
    manufacturer: Mapped[str] = mapped_column(String(64))
    kernel: Mapped[str] = mapped_column(String(64))
    slice_thickness_mm: Mapped[float | None] = mapped_column(Float)
    study_year: Mapped[int | None]
    rows: Mapped[int | None]
    columns: Mapped[int | None]
    recognizable_face: Mapped[bool | None]
    images: Mapped[int]

    __table_args__ = (
        Index("ix_catalogue_series_counts", "collection", "patient", "study_uid", "series_uid"),
        Index("ix_catalogue_series_series", "series_uid", "collection"),
    )


class Clinical(Base):
    """The agreed clinical fields of one study, per collection and minimal-dataset profile."""

    __tablename__ = "catalogue_clinical"

    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    profile: Mapped[str] = mapped_column(String(64), primary_key=True)
    patient: Mapped[str] = mapped_column(String(32), primary_key=True)
    study_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    fields: Mapped[dict[str, str | int | float | bool | None]] = mapped_column(JSON)


class Label(Base):
    """One mask on one series; `names` are what its values 1, 2, ... mean, joined by spaces."""

    __tablename__ = "catalogue_labels"

    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    series_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    names: Mapped[str] = mapped_column(String(4096), primary_key=True)
    file: Mapped[str] = mapped_column(String(71))
    size_bytes: Mapped[int]
    format: Mapped[str] = mapped_column(String(16))
    patient: Mapped[str] = mapped_column(String(32), index=True)
    study_uid: Mapped[str] = mapped_column(String(64))


class ConsentDecision(Base):
    """What one patient decided for one purpose."""

    __tablename__ = "catalogue_consent"

    patient: Mapped[str] = mapped_column(String(32), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(64), primary_key=True)
    decision: Mapped[str] = mapped_column(String(16))
    date: Mapped[str] = mapped_column(String(10))


class MergedPatient(Base):
    """A pseudonym that is another one's from now on: later entries that still use it are read so."""

    __tablename__ = "catalogue_merged"

    patient: Mapped[str] = mapped_column(String(32), primary_key=True)
    into: Mapped[str] = mapped_column(String(32), index=True)


class RemovedCount(Base):
    """How many instances went, and why."""

    __tablename__ = "catalogue_removed"

    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    reason: Mapped[str] = mapped_column(String(16), primary_key=True)
    instances: Mapped[int]


class SeriesFinding(Base):
    """What the files of a series were found to be, kept by their digests: the same files are not read twice."""

    __tablename__ = "catalogue_findings"

    content: Mapped[str] = mapped_column(String(71), primary_key=True)
    problems: Mapped[dict[str, int]] = mapped_column(JSON)


class PublishedTable(Base):
    """When the table of counts was looked at last; one row per collection."""

    __tablename__ = "catalogue_published"

    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    looked_at: Mapped[datetime] = mapped_column(UtcTime())


class PublishedCount(Base):
    """One cell of the table that is told outside.

    Attributes:
        value: what is told, rounded.
        patients: how many patients stood behind it when it was set; never told.
        slack: how many more than the minimum difference it takes to set it again; never told.
    """

    __tablename__ = "catalogue_published_counts"
    __table_args__ = (
        ForeignKeyConstraint(["collection"], ["catalogue_published.collection"], ondelete="CASCADE"),
    )

    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    cell: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[int]
    patients: Mapped[int]
    slack: Mapped[int]
