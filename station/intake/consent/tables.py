"""Tables of the consent register: its imports, every decision they stated, and what is known of the patients.

Decisions are appended and never changed or removed (triggers hold that): when one was stated first, when it was stated no
longer, by which import. What holds is derived.
"""

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from station.intake.schema import IntakeBase
from station.storage.schema import UtcTime


class ConsentImportRow(IntakeBase):
    """One import: of which source, in which state, when."""

    __tablename__ = "consent_imports"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    format: Mapped[str] = mapped_column(String(8))
    digest: Mapped[str] = mapped_column(String(71))
    source_date: Mapped[datetime] = mapped_column(UtcTime)
    imported_at: Mapped[datetime] = mapped_column(UtcTime)
    decisions: Mapped[int]


class ConsentDecisionRow(IntakeBase):
    """A decision that an import stated for the first time, or (`stated` false) states no longer."""

    __tablename__ = "consent_decisions"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    import_id: Mapped[int] = mapped_column(ForeignKey("consent_imports.id"))
    stated: Mapped[bool]
    issuer: Mapped[str] = mapped_column(String(64))
    patient_id: Mapped[str] = mapped_column(String(64), index=True)
    purpose: Mapped[str] = mapped_column(String(64))
    decision: Mapped[str] = mapped_column(String(16))
    made: Mapped[str] = mapped_column(String(10))
    given_by: Mapped[str] = mapped_column(String(16))
    valid_from: Mapped[str | None] = mapped_column(String(10))
    valid_until: Mapped[str | None] = mapped_column(String(10))


class ConsentPatientRow(IntakeBase):
    """What decides whose word counts: birth and death, as the register last said."""

    __tablename__ = "consent_patients"

    issuer: Mapped[str] = mapped_column(String(64), primary_key=True)
    patient_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    birth_date: Mapped[str | None] = mapped_column(String(10))
    deceased: Mapped[str | None] = mapped_column(String(10))


class ConsentSourceRow(IntakeBase):
    """The one consent source: when it was read, how many states were handed over, and the last one's digest.

    `looked_at` is a digest of everything that the last look at it went by.
    """

    __tablename__ = "consent_source"

    id: Mapped[int] = mapped_column(primary_key=True)
    source_date: Mapped[datetime] = mapped_column(UtcTime)
    sequence: Mapped[int]
    handed_over: Mapped[str | None] = mapped_column(String(71))
    looked_at: Mapped[str | None] = mapped_column(String(71))
