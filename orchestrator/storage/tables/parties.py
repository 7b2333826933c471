"""Who speaks to the orchestrator: bearer tokens, and the stations of the board's register."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.storage.tables.base import DIGEST_LENGTH, Base, UtcDateTime


class TokenRow(Base):
    """A bearer token, by its hash."""

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    secret_digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime] = mapped_column(UtcDateTime())
    revoked: Mapped[datetime | None] = mapped_column(UtcDateTime())
    expires: Mapped[datetime | None] = mapped_column(UtcDateTime())
    """None for those of earlier versions, which end only when they are revoked."""
    last_used: Mapped[datetime | None] = mapped_column(UtcDateTime())


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
