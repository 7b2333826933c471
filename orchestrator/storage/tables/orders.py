"""Accepted run orders. A run's own progress is not here: it lies in the run's folder, written by the run worker."""

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.storage.tables.base import DIGEST_LENGTH, Base, UtcDateTime


class OrderRow(Base):
    """A run order that was accepted for running; the envelope lies in the run's folder."""

    __tablename__ = "orders"

    digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), primary_key=True)
    order_id: Mapped[str] = mapped_column(String(32), unique=True)
    policy_id: Mapped[str] = mapped_column(String(64))
    policy_version: Mapped[int]
    requester: Mapped[str] = mapped_column(String(80))
    accepted: Mapped[datetime] = mapped_column(UtcDateTime())


class OrderStationRow(Base):
    """A station that an order names."""

    __tablename__ = "order_stations"

    order_digest: Mapped[str] = mapped_column(ForeignKey("orders.digest"), primary_key=True)
    station: Mapped[str] = mapped_column(String(64), primary_key=True)
