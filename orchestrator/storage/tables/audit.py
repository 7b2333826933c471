"""The orchestrator's own audit: a hash chain, see `policies.chains`."""

from sqlalchemy import LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.storage.tables.base import DIGEST_LENGTH, Base


class AuditEventRow(Base):
    """One entry; written by `orchestrator.registry.audit` only, never changed and never removed (triggers hold that)."""

    __tablename__ = "audit_events"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH))
