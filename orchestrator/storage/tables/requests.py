"""Requests of researchers for a train to run, and the history of their states."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String, false
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.storage.tables.base import DIGEST_LENGTH, Base, UtcDateTime


class RequestRow(Base):
    """One request as it came, and where it stands; how it came there is in its history."""

    __tablename__ = "requests"
    __table_args__ = (
        Index("ix_requests_owner", "owner"),
        Index("ix_requests_manifest", "manifest_digest", "requester_key"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(80))
    document: Mapped[bytes] = mapped_column(LargeBinary)
    """`policies.train_request.TrainRequest` as YAML, the researcher's own bytes."""
    envelope: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The signed document (`policies.train_request.SignedRequest`) as it came; none of requests of earlier versions."""
    signed: Mapped[bool] = mapped_column(server_default=false())
    """Whether there is one: the named key signed it for this owner."""
    document_digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH))
    train: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    manifest_digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH))
    requester_key: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    policy_id: Mapped[str | None] = mapped_column(String(64))
    """The policy in force that approved it; with its version."""
    policy_version: Mapped[int | None]
    submitted: Mapped[datetime] = mapped_column(UtcDateTime())
    changed: Mapped[datetime] = mapped_column(UtcDateTime())


class RequestStepRow(Base):
    """One change of state; never changed and never removed (triggers hold that)."""

    __tablename__ = "request_history"

    request: Mapped[str] = mapped_column(ForeignKey("requests.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    moment: Mapped[datetime] = mapped_column(UtcDateTime())
    who: Mapped[str] = mapped_column(String(80))
    before: Mapped[str] = mapped_column(String(16))
    """Empty for the first."""
    after: Mapped[str] = mapped_column(String(16))
    code: Mapped[str] = mapped_column(String(64))
    """Why, by a word of a closed list; empty where there is nothing to say."""
    text: Mapped[str] = mapped_column(String(500))
