"""Tables of clinical data."""

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from policies.profiles import ClinicalValue
from station.intake.schema import IntakeBase


class ClinicalEntryRow(IntakeBase):
    """One row of an eCRF export: the agreed fields, and the digest of what was last handed over of it."""

    __tablename__ = "clinical"

    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    patient_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    accession: Mapped[str] = mapped_column(String(64), primary_key=True)
    profile: Mapped[str] = mapped_column(String(64))
    birth_date: Mapped[str | None] = mapped_column(String(10))
    fields: Mapped[dict[str, ClinicalValue]] = mapped_column(JSON)
    handed_over: Mapped[str | None] = mapped_column(String(71))
