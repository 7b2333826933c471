"""What the station stated, what was countersigned of it, and whether its records are the newest there were."""

from datetime import datetime

from sqlalchemy import LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from station.storage.schema import Base, UtcTime

SINGLE_ROW = 1


class StatementRow(Base):
    """A statement of this station, durable before it is sent; the oldest go (`station.continuity.stating`)."""

    __tablename__ = "statements"

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int]
    digest: Mapped[str] = mapped_column(String(71), index=True)
    envelope: Mapped[bytes] = mapped_column(LargeBinary)
    audit_seq: Mapped[int]
    egress_seq: Mapped[int]
    made: Mapped[datetime] = mapped_column(UtcTime)
    receipt: Mapped[bytes | None] = mapped_column(LargeBinary)


class ContinuityRow(Base):
    """The one row about the station's records as a whole.

    Attributes:
        restored: they are not the newest there were; nothing runs until they are reconciled.
        problem: what shows it, in a sentence of ours.
        evidence: the newest statement of this station that its records do not hold.
        detected: when it was seen.
        consent_floor: the consent state when it was seen; a later one, read after `detected`, must come. None: none must.
        restoration: in every statement of the present epoch.
        reconciled: the newest reconciliation; no order issued before it runs any more.
        heads, heads_time: the newest document of the witness that names this station.
        witnessed_epoch, witnessed_sequence: of the statement it names.
        witnessed_made: when that statement was made here.
        notary_key: the orchestrator's, as first seen.
        settings_digest: of station.toml as it was audited last.
        trust_root, trust_timestamp, trust_targets, trust_register: the highest versions seen.
    """

    __tablename__ = "continuity"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int]
    restored: Mapped[bool]
    problem: Mapped[str] = mapped_column(String(300))
    evidence: Mapped[bytes | None] = mapped_column(LargeBinary)
    detected: Mapped[datetime | None] = mapped_column(UtcTime)
    consent_floor: Mapped[int | None]
    restoration: Mapped[bytes | None] = mapped_column(LargeBinary)
    reconciled: Mapped[datetime | None] = mapped_column(UtcTime)
    heads: Mapped[bytes | None] = mapped_column(LargeBinary)
    heads_time: Mapped[datetime | None] = mapped_column(UtcTime)
    witnessed_epoch: Mapped[int]
    witnessed_sequence: Mapped[int]
    witnessed_made: Mapped[datetime | None] = mapped_column(UtcTime)
    notary_key: Mapped[str] = mapped_column(String(64))
    settings_digest: Mapped[str] = mapped_column(String(71), server_default="")
    trust_root: Mapped[int]
    trust_timestamp: Mapped[int]
    trust_targets: Mapped[int]
    trust_register: Mapped[int]


class RestoredOrderRow(Base):
    """An order that was stated before a restoration: it is spent; never removed (a trigger holds that)."""

    __tablename__ = "restored_orders"

    order_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    releases: Mapped[int]
    reconciled: Mapped[datetime] = mapped_column(UtcTime)


def fresh_row() -> ContinuityRow:
    """Return the row of a station that has stated nothing yet."""
    return ContinuityRow(
        id=SINGLE_ROW, epoch=1, restored=False, problem="", witnessed_epoch=0, witnessed_sequence=0, notary_key="", settings_digest="",
        trust_root=0, trust_timestamp=0, trust_targets=0, trust_register=0,
    )  # fmt: skip
