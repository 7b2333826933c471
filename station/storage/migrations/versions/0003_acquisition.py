"""The catalogue: acquisition, labels, merges, removals, findings of series, the table of counts.

Revision: 0003
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COUNTS = (
    "collection", "patient", "study_uid", "series_uid", "modality", "body_part", "view_position", "manufacturer",
    "kernel", "slice_thickness_mm", "study_year", "rows", "columns", "recognizable_face",
)  # fmt: skip
_NEW_TABLES = (
    "catalogue_published_counts", "catalogue_published", "catalogue_findings", "catalogue_removed",
    "catalogue_merged", "catalogue_labels",
)  # fmt: skip


def _new_columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("manufacturer", sa.String(64), nullable=False, server_default=""),
        sa.Column("model", sa.String(64), nullable=False, server_default=""),
        sa.Column("kernel", sa.String(64), nullable=False, server_default=""),
        sa.Column("slice_thickness_mm", sa.Float()),
        sa.Column("study_year", sa.Integer()),
        sa.Column("rows", sa.Integer()),
        sa.Column("columns", sa.Integer()),
        sa.Column("image_type", sa.String(80), nullable=False, server_default=""),
        sa.Column("recognizable_face", sa.Boolean()),
        sa.Column("pixels", sa.String(16), nullable=False, server_default="not-inspected"),
    )


def upgrade() -> None:
    for column in _new_columns():
        op.add_column("catalogue_instances", column)
    op.create_index("ix_catalogue_instances_series_uid", "catalogue_instances", ["series_uid"])
    op.create_index("ix_catalogue_instances_counts", "catalogue_instances", list(_COUNTS))
    op.create_table(
        "catalogue_labels",
        sa.Column("collection", sa.String(64), primary_key=True),
        sa.Column("series_uid", sa.String(64), primary_key=True),
        sa.Column("names", sa.String(4096), primary_key=True),
        sa.Column("file", sa.String(71), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("format", sa.String(16), nullable=False),
        sa.Column("patient", sa.String(32), nullable=False),
        sa.Column("study_uid", sa.String(64), nullable=False),
    )
    op.create_index("ix_catalogue_labels_patient", "catalogue_labels", ["patient"])
    op.create_table(
        "catalogue_merged",
        sa.Column("patient", sa.String(32), primary_key=True),
        sa.Column("into", sa.String(32), nullable=False),
    )
    op.create_index("ix_catalogue_merged_into", "catalogue_merged", ["into"])
    op.create_table(
        "catalogue_removed",
        sa.Column("collection", sa.String(64), primary_key=True),
        sa.Column("reason", sa.String(16), primary_key=True),
        sa.Column("instances", sa.Integer(), nullable=False),
    )
    _create_own_tables()


def _create_own_tables() -> None:
    op.create_table(
        "catalogue_findings",
        sa.Column("content", sa.String(71), primary_key=True),
        sa.Column("problems", sa.JSON(), nullable=False),
    )
    op.create_table(
        "catalogue_published",
        sa.Column("collection", sa.String(64), primary_key=True),
        sa.Column("looked_at", sa.String(32), nullable=False),
    )
    op.create_table(
        "catalogue_published_counts",
        sa.Column("collection", sa.String(64), primary_key=True),
        sa.Column("cell", sa.String(32), primary_key=True),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.Column("patients", sa.Integer(), nullable=False),
        sa.Column("slack", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["collection"], ["catalogue_published.collection"], ondelete="CASCADE"),
    )


def downgrade() -> None:
    for table in _NEW_TABLES:
        op.drop_table(table)
    for index in ("counts", "series_uid"):
        op.drop_index(f"ix_catalogue_instances_{index}", "catalogue_instances")
    for column in _new_columns():
        op.drop_column("catalogue_instances", column.name)
