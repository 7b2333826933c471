"""Files: sources, quarantine, removals, retention, merges.

Revision: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("source", sa.String(16), nullable=False, server_default="folder"))
    op.add_column("files", sa.Column("decided_at", sa.String(32)))
    op.add_column("files", sa.Column("decided_by", sa.String(64)))
    op.create_index("files_by_reason", "files", ["outcome", "reason"])
    op.create_index("files_by_study", "files", ["study_uid"])
    op.add_column("studies", sa.Column("standing", sa.String(16), nullable=False, server_default="clear"))
    op.add_column("instances", sa.Column("source_digest", sa.String(71)))
    op.add_column("instances", sa.Column("added_at", sa.String(32)))
    op.create_index("instances_by_study", "instances", ["study_uid"])
    op.create_index("instances_by_file", "instances", ["file"])
    op.create_table(
        "removed",
        sa.Column("collection", sa.String(64), primary_key=True),
        sa.Column("sop_instance_uid", sa.String(64), primary_key=True),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("file", sa.String(71), index=True),
        sa.Column("removed_at", sa.String(32), nullable=False),
    )
    op.create_table(
        "merges",
        sa.Column("old_issuer", sa.String(64), primary_key=True),
        sa.Column("old_id", sa.String(64), primary_key=True),
        sa.Column("new_issuer", sa.String(64), nullable=False),
        sa.Column("new_id", sa.String(64), nullable=False),
        sa.Column("old_pseudonym", sa.String(32), nullable=False, unique=True),
        sa.Column("new_pseudonym", sa.String(32), nullable=False),
        sa.Column("merged_at", sa.String(32), nullable=False),
    )


def downgrade() -> None:
    for table in ("merges", "removed"):
        op.drop_table(table)
    for index, table in (
        ("instances_by_file", "instances"), ("instances_by_study", "instances"),
        ("files_by_study", "files"), ("files_by_reason", "files"),
    ):  # fmt: skip
        op.drop_index(index, table)
    for table, column in (
        ("instances", "added_at"), ("instances", "source_digest"), ("studies", "standing"),
        ("files", "decided_by"), ("files", "decided_at"), ("batches", "source"),
    ):  # fmt: skip
        op.drop_column(table, column)
