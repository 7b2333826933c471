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

_NEW_TABLES = (
    "catalogue_published_counts", "catalogue_published", "catalogue_findings", "catalogue_removed",
    "catalogue_merged", "catalogue_labels", "catalogue_series",
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
    op.create_index("ix_catalogue_instances_series", "catalogue_instances", ["series_uid", "collection"])
    op.create_index("ix_catalogue_instances_file", "catalogue_instances", ["file"])
    _create_series()
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


def _create_series() -> None:
    op.create_table(
        "catalogue_series",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("collection", sa.String(64), nullable=False),
        sa.Column("patient", sa.String(32), nullable=False),
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.Column("series_uid", sa.String(64), nullable=False),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("body_part", sa.String(16), nullable=False),
        sa.Column("view_position", sa.String(16), nullable=False),
        sa.Column("manufacturer", sa.String(64), nullable=False),
        sa.Column("kernel", sa.String(64), nullable=False),
        sa.Column("slice_thickness_mm", sa.Float()),
        sa.Column("study_year", sa.Integer()),
        sa.Column("rows", sa.Integer()),
        sa.Column("columns", sa.Integer()),
        sa.Column("recognizable_face", sa.Boolean()),
        sa.Column("images", sa.Integer(), nullable=False),
    )
    op.create_index("ix_catalogue_series_patient", "catalogue_series", ["patient"])
    op.create_index("ix_catalogue_series_series", "catalogue_series", ["series_uid", "collection"])
    op.create_index(
        "ix_catalogue_series_counts", "catalogue_series", ["collection", "patient", "study_uid", "series_uid"]
    )
    # What an earlier version took up said nothing of its acquisition.
    op.execute(
        "INSERT INTO catalogue_series (collection, patient, study_uid, series_uid, modality, body_part, view_position, "
        "manufacturer, kernel, images) SELECT collection, patient, study_uid, series_uid, modality, body_part, "
        "view_position, '', '', count(*) FROM catalogue_instances GROUP BY 1, 2, 3, 4, 5, 6, 7"
    )


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
    for index in ("file", "series"):
        op.drop_index(f"ix_catalogue_instances_{index}", "catalogue_instances")
    for column in _new_columns():
        op.drop_column("catalogue_instances", column.name)
