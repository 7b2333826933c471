"""Manifests that came over the OCI distribution API, as they were sent."""

from datetime import datetime

from sqlalchemy import Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.storage.tables.base import DIGEST_LENGTH, Base, UtcDateTime


class OciManifestRow(Base):
    """A pushed manifest of a train: an image of it, or the artifact that holds its train.yaml."""

    __tablename__ = "oci_manifests"
    __table_args__ = (
        Index("ix_oci_manifests_config", "repository", "config_digest"),
        Index("ix_oci_manifests_subject", "repository", "subject"),
    )

    repository: Mapped[str] = mapped_column(String(64), primary_key=True)
    digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), primary_key=True)
    media_type: Mapped[str] = mapped_column(String(255))
    artifact_type: Mapped[str] = mapped_column(String(255), server_default="")
    """Empty for an image."""
    manifest_digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH))
    """Of the train's train.yaml."""
    config_digest: Mapped[str | None] = mapped_column(String(DIGEST_LENGTH))
    """Of the image; none for the artifact, which is of all images of its train."""
    subject: Mapped[str | None] = mapped_column(String(DIGEST_LENGTH))
    body: Mapped[bytes] = mapped_column(LargeBinary)
    owner: Mapped[str] = mapped_column(String(80))
    created: Mapped[datetime] = mapped_column(UtcDateTime())
    tagged: Mapped[datetime | None] = mapped_column(UtcDateTime())
    """When it was last sent under a tag: of several packings of an image, tags lead to the newest."""


class OciBlobRow(Base):
    """A blob that a pushed manifest names and a bundle does not: a packed layer."""

    __tablename__ = "oci_blobs"

    repository: Mapped[str] = mapped_column(String(64), primary_key=True)
    digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), primary_key=True)
