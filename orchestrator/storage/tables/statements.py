"""Stations' statements, and the evidence of forks and restorations."""

from datetime import datetime

from sqlalchemy import Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.storage.dialects import BIG
from orchestrator.storage.tables.base import DIGEST_LENGTH, Base, UtcDateTime


class StatementRow(Base):
    """The newest statement of a station, under the identity key that signed it."""

    __tablename__ = "station_statements"

    station: Mapped[str] = mapped_column(String(64), primary_key=True)
    identity_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    epoch: Mapped[int] = mapped_column(BIG)
    sequence: Mapped[int] = mapped_column(BIG)
    statement: Mapped[str] = mapped_column(String(DIGEST_LENGTH))
    envelope: Mapped[bytes] = mapped_column(LargeBinary)
    receipt: Mapped[bytes] = mapped_column(LargeBinary)
    audit_seq: Mapped[int] = mapped_column(BIG)
    egress_seq: Mapped[int] = mapped_column(BIG)
    received: Mapped[datetime] = mapped_column(UtcDateTime())


class ForkRow(Base):
    """Two statements of one station that exclude each other; kept for good (triggers hold that)."""

    __tablename__ = "statement_forks"
    __table_args__ = (Index("ix_statement_forks_station", "station"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    station: Mapped[str] = mapped_column(String(64))
    code: Mapped[str] = mapped_column(String(64))
    standing_envelope: Mapped[bytes] = mapped_column(LargeBinary)
    offered: Mapped[str] = mapped_column(String(DIGEST_LENGTH))
    offered_envelope: Mapped[bytes] = mapped_column(LargeBinary)
    received: Mapped[datetime] = mapped_column(UtcDateTime())


class RestorationRow(Base):
    """The first statement of an epoch that a restoration began; kept for good."""

    __tablename__ = "statement_restorations"

    station: Mapped[str] = mapped_column(String(64), primary_key=True)
    identity_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    epoch: Mapped[int] = mapped_column(BIG, primary_key=True)
    envelope: Mapped[bytes] = mapped_column(LargeBinary)
    received: Mapped[datetime] = mapped_column(UtcDateTime())
