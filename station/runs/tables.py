"""The orders a station has seen, and the counters that only grow."""

from datetime import datetime

from sqlalchemy import LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from station.storage.schema import Base, UtcTime


class OrderRow(Base):
    """One run order; never removed, its bytes never changed (triggers hold that)."""

    __tablename__ = "orders"

    order_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    order_id: Mapped[str] = mapped_column(String(32))
    envelope: Mapped[bytes] = mapped_column(LargeBinary)
    policy_id: Mapped[str] = mapped_column(String(64), index=True)
    policy_version: Mapped[int]
    requester: Mapped[str | None] = mapped_column(String(128))
    purpose: Mapped[str | None] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(32))
    decision: Mapped[str] = mapped_column(String(16))
    decided_by: Mapped[str | None] = mapped_column(String(128))
    code: Mapped[str | None] = mapped_column(String(64))
    correlation_id: Mapped[str] = mapped_column(String(64))
    failures: Mapped[int]
    started: Mapped[bool]
    first_seen: Mapped[datetime] = mapped_column(UtcTime)
    changed: Mapped[datetime] = mapped_column(UtcTime)
    finished: Mapped[datetime | None] = mapped_column(UtcTime)
