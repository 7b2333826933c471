"""What each patient was charged, and every draw of noise: rows that only grow (triggers hold that)."""

from datetime import datetime

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from station.storage.schema import Base, UtcTime


class PrivacySpentRow(Base):
    """What one patient was charged under one policy, over all its versions, orders and runs."""

    __tablename__ = "privacy_spent"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - as SQLAlchemy reads it

    policy_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    patient: Mapped[str] = mapped_column(String(32), primary_key=True)
    spent: Mapped[int] = mapped_column(BigInteger)


class PrivacyPatientRow(Base):
    """What one patient was charged over everything."""

    __tablename__ = "privacy_patients"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - as SQLAlchemy reads it

    patient: Mapped[str] = mapped_column(String(32), primary_key=True)
    spent: Mapped[int] = mapped_column(BigInteger)


class PrivacyDrawRow(Base):
    """One draw of noise: charged here before it was made; whether its answer ever left, `releases` says.

    Attributes:
        outputs: what was charged, for example ``["loss", "tensors"]``, as JSON.
        cost: of all of it together, charged to each of `patients`.
        patients: how many.
    """

    __tablename__ = "privacy_draws"

    number: Mapped[int] = mapped_column(primary_key=True)
    order_digest: Mapped[str] = mapped_column(String(71), index=True)
    round: Mapped[int]
    stage: Mapped[str] = mapped_column(String(16))
    policy_id: Mapped[str] = mapped_column(String(64), index=True)
    policy_version: Mapped[int]
    outputs: Mapped[str]
    cost: Mapped[int] = mapped_column(BigInteger)
    patients: Mapped[int]
    charged: Mapped[datetime] = mapped_column(UtcTime)
