"""The tables. A run's own progress is not here: it lies in the run's folder, written by the run worker."""

from datetime import UTC, datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import DateTime, TypeDecorator

DIGEST_LENGTH = 71


class UtcDateTime(TypeDecorator[datetime]):
    """Moments in UTC; SQLite itself forgets the zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store without zone."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Base of all tables."""


class TokenRow(Base):
    """A bearer token, by its hash."""

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    secret_digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime] = mapped_column(UtcDateTime())
    revoked: Mapped[datetime | None] = mapped_column(UtcDateTime())


class StationRow(Base):
    """A station of the board's register, as last verified."""

    __tablename__ = "stations"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    organisation: Mapped[str] = mapped_column(String(4000))
    identity_key: Mapped[str] = mapped_column(String(64), server_default="")
    """Ed25519, hex: signs the station's statements; empty where an earlier version read the register."""
    node_key: Mapped[str] = mapped_column(String(1024))
    key_fingerprint: Mapped[str] = mapped_column(String(DIGEST_LENGTH), unique=True)
    register_version: Mapped[int]
    node_id: Mapped[str | None] = mapped_column(String(20))
    """Flower's id, an unsigned 64-bit number: as text, since SQLite's integers are signed."""
    last_seen: Mapped[datetime | None] = mapped_column(UtcDateTime())


class BundleRow(Base):
    """A packed train: one manifest with one image. A manifest with two image variants is two bundles."""

    __tablename__ = "bundles"
    __table_args__ = (
        Index("ix_bundles_config", "config_digest"),
        Index("ix_bundles_name", "name", "version"),
    )

    manifest_digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), primary_key=True)
    config_digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    index_json: Mapped[bytes] = mapped_column(LargeBinary)
    owner: Mapped[str] = mapped_column(String(80))
    created: Mapped[datetime] = mapped_column(UtcDateTime())


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


class BlobGrant(Base):
    """Who may read a blob: `bundle` (any registered party), `order:<digest>` (its parties) or `owner:<principal>`."""

    __tablename__ = "blob_grants"
    __table_args__ = (Index("ix_blob_grants_scope", "scope"),)

    digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), primary_key=True)
    scope: Mapped[str] = mapped_column(String(160), primary_key=True)


class StatementRow(Base):
    """The newest statement of a station, under the identity key that signed it."""

    __tablename__ = "station_statements"

    station: Mapped[str] = mapped_column(String(64), primary_key=True)
    identity_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    epoch: Mapped[int]
    sequence: Mapped[int]
    statement: Mapped[str] = mapped_column(String(DIGEST_LENGTH))
    envelope: Mapped[bytes] = mapped_column(LargeBinary)
    receipt: Mapped[bytes] = mapped_column(LargeBinary)
    audit_seq: Mapped[int]
    egress_seq: Mapped[int]
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
    epoch: Mapped[int] = mapped_column(primary_key=True)
    envelope: Mapped[bytes] = mapped_column(LargeBinary)
    received: Mapped[datetime] = mapped_column(UtcDateTime())
