"""The catalogue: how far the handover log was read, instances, clinical rows, consent decisions.

Revision: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "catalogue_state",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("consent_sequence", sa.Integer()),
        sa.Column("consent_source_date", sa.String(32)),
    )
    op.create_table(
        "catalogue_instances",
        sa.Column("collection", sa.String(64), primary_key=True),
        sa.Column("sop_instance_uid", sa.String(64), primary_key=True),
        sa.Column("file", sa.String(71), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("patient", sa.String(32), nullable=False),
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.Column("series_uid", sa.String(64), nullable=False),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(64), nullable=False),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("body_part", sa.String(16), nullable=False),
        sa.Column("view_position", sa.String(16), nullable=False),
    )
    op.create_index("ix_catalogue_instances_patient", "catalogue_instances", ["patient"])
    op.create_index("ix_catalogue_instances_study_uid", "catalogue_instances", ["study_uid"])
    op.create_table(
        "catalogue_clinical",
        sa.Column("collection", sa.String(64), primary_key=True),
        sa.Column("profile", sa.String(64), primary_key=True),
        sa.Column("patient", sa.String(32), primary_key=True),
        sa.Column("study_uid", sa.String(64), primary_key=True),
        sa.Column("fields", sa.JSON(), nullable=False),
    )
    op.create_table(
        "catalogue_consent",
        sa.Column("patient", sa.String(32), primary_key=True),
        sa.Column("purpose", sa.String(64), primary_key=True),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("date", sa.String(10), nullable=False),
    )


def downgrade() -> None:
    for table in ("catalogue_consent", "catalogue_clinical", "catalogue_instances", "catalogue_state"):
        op.drop_table(table)
