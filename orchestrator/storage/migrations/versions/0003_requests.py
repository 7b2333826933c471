"""Requests of researchers, and the history of their states."""

import sqlalchemy as sa
from alembic import op

from orchestrator.storage.dialects import append_only

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "requests",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("document_digest", sa.String(71), nullable=False),
        sa.Column("train", sa.String(64), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("manifest_digest", sa.String(71), nullable=False),
        sa.Column("requester_key", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("policy_id", sa.String(64)),
        sa.Column("policy_version", sa.Integer()),
        sa.Column("submitted", sa.DateTime(), nullable=False),
        sa.Column("changed", sa.DateTime(), nullable=False),
    )
    op.create_index("ix_requests_owner", "requests", ["owner"])
    op.create_index("ix_requests_manifest", "requests", ["manifest_digest", "requester_key"])
    op.create_table(
        "request_history",
        sa.Column("request", sa.String(32), sa.ForeignKey("requests.id"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("moment", sa.DateTime(), nullable=False),
        sa.Column("who", sa.String(80), nullable=False),
        sa.Column("before", sa.String(16), nullable=False),
        sa.Column("after", sa.String(16), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("text", sa.String(500), nullable=False),
    )
    append_only(op.get_bind(), "request_history")
