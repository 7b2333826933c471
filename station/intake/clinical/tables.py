"""Tables of clinical data and labels."""

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from policies.profiles import ClinicalValue
from station.intake.schema import IntakeBase
from station.storage.schema import UtcTime


class MappingRow(IntakeBase):
    """A mapping file that was used, as it stood."""

    __tablename__ = "clinical_mappings"

    digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    document: Mapped[bytes] = mapped_column(LargeBinary)


class ClinicalImportRow(IntakeBase):
    """An import that changed something: of what, under which mapping, when, by whom."""

    __tablename__ = "clinical_imports"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    collection: Mapped[str] = mapped_column(String(64))
    profile: Mapped[str] = mapped_column(String(64))
    mapping: Mapped[str] = mapped_column(String(64))
    mapping_digest: Mapped[str | None] = mapped_column(ForeignKey("clinical_mappings.digest"))
    source_digest: Mapped[str] = mapped_column(String(71))
    complete: Mapped[bool]
    imported_at: Mapped[datetime] = mapped_column(UtcTime)
    imported_by: Mapped[str] = mapped_column(String(64))


class ClinicalRowRow(IntakeBase):
    """A row that an export brought, by the hospital's own ids; `version` is the current one of its versions.

    Attributes:
        link: ``accession``, ``date`` or ``patient``: how it finds its studies.
        days_before, days_after, every: of ``date``, around which day and how many.
    """

    __tablename__ = "clinical_rows"
    __table_args__ = (
        Index(
            "clinical_rows_key",
            "collection",
            "profile",
            "issuer",
            "patient_id",
            "accession",
            "day",
            unique=True,
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    collection: Mapped[str] = mapped_column(String(64))
    profile: Mapped[str] = mapped_column(String(64))
    issuer: Mapped[str] = mapped_column(String(64))
    patient_id: Mapped[str] = mapped_column(String(64), index=True)
    accession: Mapped[str] = mapped_column(String(64))
    day: Mapped[str] = mapped_column(String(10))
    link: Mapped[str] = mapped_column(String(16))
    days_before: Mapped[int] = mapped_column(default=0)
    days_after: Mapped[int] = mapped_column(default=0)
    every: Mapped[bool] = mapped_column(default=False)
    version: Mapped[int]


class ClinicalVersionRow(IntakeBase):
    """What a row said from one import on; never changed.

    Attributes:
        fields: every field that any export has covered so far.
        dates: of fields that are computed from a date; they stay in intake.
    """

    __tablename__ = "clinical_versions"

    row: Mapped[int] = mapped_column(ForeignKey("clinical_rows.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    import_id: Mapped[int] = mapped_column(ForeignKey("clinical_imports.id"))
    fields: Mapped[dict[str, ClinicalValue]] = mapped_column(JSON)
    dates: Mapped[dict[str, str]] = mapped_column(JSON)


class ClinicalHandedRow(IntakeBase):
    """What compute has of one study: from which rows and versions (`made_of`), and the digest of what it was told."""

    __tablename__ = "clinical_handed"

    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    profile: Mapped[str] = mapped_column(String(64), primary_key=True)
    study_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    patient: Mapped[str] = mapped_column(String(32))
    made_of: Mapped[str] = mapped_column(String(71))
    digest: Mapped[str] = mapped_column(String(71))


class LabelRow(IntakeBase):
    """A mask that was handed over: the current one of a series for these names (joined by spaces)."""

    __tablename__ = "labels"

    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    series_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    names: Mapped[str] = mapped_column(String(20_000), primary_key=True)
    file: Mapped[str] = mapped_column(String(71), index=True)
    source_digest: Mapped[str] = mapped_column(String(71))
    added_at: Mapped[datetime] = mapped_column(UtcTime)
    added_by: Mapped[str] = mapped_column(String(64))
    outbox: Mapped[int] = mapped_column(ForeignKey("outbox.id"))
