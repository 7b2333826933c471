"""The orchestrator's own audit: a hash chain of who did what. Tokens end, and say when they were last used."""

import sqlalchemy as sa
from alembic import op

from orchestrator.storage.dialects import append_only

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table, and the columns of tokens."""
    op.create_table(
        "audit_events",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
    )
    append_only(op.get_bind(), "audit_events")
    op.add_column("tokens", sa.Column("expires", sa.DateTime(), nullable=True))
    op.add_column("tokens", sa.Column("last_used", sa.DateTime(), nullable=True))
