"""Manifests and packed layers that came over the OCI distribution API."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "oci_manifests",
        sa.Column("repository", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("media_type", sa.String(255), nullable=False),
        sa.Column("artifact_type", sa.String(255), nullable=False, server_default=""),
        sa.Column("manifest_digest", sa.String(71), nullable=False),
        sa.Column("config_digest", sa.String(71)),
        sa.Column("subject", sa.String(71)),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("tagged", sa.DateTime()),
    )
    op.create_index("ix_oci_manifests_config", "oci_manifests", ["repository", "config_digest"])
    op.create_index("ix_oci_manifests_subject", "oci_manifests", ["repository", "subject"])
    op.create_table(
        "oci_blobs",
        sa.Column("repository", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(71), primary_key=True),
    )
