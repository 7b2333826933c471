"""The egress ledger, the recorded releases, and the counters that only grow (triggers hold all three)."""

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from station.audit.chain import ChainedRow
from station.storage.schema import Base, UtcTime


class LedgerRow(ChainedRow):
    """One message that left; written by `station.egress.records.ledger` only."""

    __tablename__ = "egress_ledger"


class ReleaseRow(Base):
    """The one answer to (order, round, stage); never changed, but that its reply goes when it is purged (a trigger holds that)."""

    __tablename__ = "releases"

    order_digest: Mapped[str] = mapped_column(String(71), ForeignKey("orders.order_digest"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(String(16), primary_key=True)
    policy_id: Mapped[str] = mapped_column(String(64))
    reply: Mapped[bytes] = mapped_column(LargeBinary)
    arrays_digest: Mapped[str | None] = mapped_column(String(71), index=True)
    arrays_size: Mapped[int | None]
    ledger_seq: Mapped[int] = mapped_column(ForeignKey("egress_ledger.seq"))
    recorded: Mapped[datetime] = mapped_column(UtcTime)
    examples: Mapped[int | None]
    purged: Mapped[datetime | None] = mapped_column(UtcTime)


class CounterRow(Base):
    """A number that only grows, for example the releases used of one policy."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    scope: Mapped[str] = mapped_column(String(128), primary_key=True)
    value: Mapped[int]
