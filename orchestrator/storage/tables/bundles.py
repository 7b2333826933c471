"""Packed trains, and who may read which blob."""

from datetime import datetime

from sqlalchemy import Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.storage.tables.base import DIGEST_LENGTH, Base, UtcDateTime


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


class BlobGrant(Base):
    """Who may read a blob: `bundle` (any registered party), `order:<digest>` (its parties) or `owner:<principal>`."""

    __tablename__ = "blob_grants"
    __table_args__ = (Index("ix_blob_grants_scope", "scope"),)

    digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), primary_key=True)
    scope: Mapped[str] = mapped_column(String(160), primary_key=True)
