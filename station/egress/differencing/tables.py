"""What earlier releases were counted over: who (patients by number), in which cells, under whose name it was asked.

A number stands for one patient's project pseudonym, which is personal data; where the patient may be used for nothing any more, the
pseudonym goes and the number stays, so that the sets still are what they were and nobody can say whose the number was.
"""

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from station.storage.schema import Base, UtcTime


class NumberedPatientRow(Base):
    """A patient's number in the sets; the pseudonym may go, and is never another's (triggers hold that)."""

    __tablename__ = "difference_patients"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    patient: Mapped[str | None] = mapped_column(String(32), unique=True)


class DifferenceSetRow(Base):
    """One set of patients, or one dealing of them into cells; equal ones are kept once."""

    __tablename__ = "difference_sets"

    digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class DifferenceRow(Base):
    """One table or metric that a requester was told; told again with nothing changed, it is the same row."""

    __tablename__ = "differences"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    requester_key: Mapped[str] = mapped_column(String(64))
    organisation: Mapped[str] = mapped_column(String(4000))
    order_digest: Mapped[str] = mapped_column(String(71))
    what: Mapped[str] = mapped_column(String(64))
    measure: Mapped[str] = mapped_column(String(16))
    minimum: Mapped[int]
    patients: Mapped[str] = mapped_column(String(71), ForeignKey("difference_sets.digest"), index=True)
    content: Mapped[str] = mapped_column(String(71), ForeignKey("difference_sets.digest"), index=True)
    last_told: Mapped[datetime] = mapped_column(UtcTime, index=True)
