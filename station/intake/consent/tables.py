"""Tables of the consent register."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from station.intake.schema import IntakeBase
from station.storage.schema import UtcTime


class ConsentRow(IntakeBase):
    """What a patient decided for a purpose, as the hospital's register says."""

    __tablename__ = "consent"

    patient_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(64), primary_key=True)
    decision: Mapped[str] = mapped_column(String(16))
    date: Mapped[str] = mapped_column(String(10))


class ConsentSourceRow(IntakeBase):
    """The one consent source: when it was read, how many states were handed over, and the last one's digest."""

    __tablename__ = "consent_source"

    id: Mapped[int] = mapped_column(primary_key=True)
    source_date: Mapped[datetime] = mapped_column(UtcTime)
    sequence: Mapped[int]
    handed_over: Mapped[str | None] = mapped_column(String(71))
