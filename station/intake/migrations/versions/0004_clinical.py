"""Clinical rows with their history, mappings, what compute has of each study; labels.

Revision: 0004

The table that this replaces kept no history and was never released.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("clinical")
    op.create_table(
        "clinical_mappings",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "clinical_imports",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("collection", sa.String(64), nullable=False),
        sa.Column("profile", sa.String(64), nullable=False),
        sa.Column("mapping", sa.String(64), nullable=False),
        sa.Column("mapping_digest", sa.String(71), sa.ForeignKey("clinical_mappings.digest")),
        sa.Column("source_digest", sa.String(71), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("imported_at", sa.String(32), nullable=False),
        sa.Column("imported_by", sa.String(64), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "clinical_rows",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("collection", sa.String(64), nullable=False),
        sa.Column("profile", sa.String(64), nullable=False),
        sa.Column("issuer", sa.String(64), nullable=False),
        sa.Column("patient_id", sa.String(64), nullable=False, index=True),
        sa.Column("accession", sa.String(64), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("link", sa.String(16), nullable=False),
        sa.Column("days_before", sa.Integer(), nullable=False),
        sa.Column("days_after", sa.Integer(), nullable=False),
        sa.Column("every", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "clinical_rows_key",
        "clinical_rows",
        ["collection", "profile", "issuer", "patient_id", "accession", "day"],
        unique=True,
    )
    op.create_table(
        "clinical_versions",
        sa.Column("row", sa.Integer(), sa.ForeignKey("clinical_rows.id"), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True),
        sa.Column("import_id", sa.Integer(), sa.ForeignKey("clinical_imports.id"), nullable=False),
        sa.Column("fields", sa.JSON(), nullable=False),
        sa.Column("dates", sa.JSON(), nullable=False),
    )
    # Deleting stays possible: a patient's data may have to go altogether. Rewriting what was said does not.
    op.execute(
        "CREATE TRIGGER clinical_versions_no_update BEFORE UPDATE ON clinical_versions "
        "BEGIN SELECT RAISE(ABORT, 'a version of clinical data is never changed'); END"
    )
    op.create_table(
        "clinical_handed",
        sa.Column("collection", sa.String(64), primary_key=True),
        sa.Column("profile", sa.String(64), primary_key=True),
        sa.Column("study_uid", sa.String(64), primary_key=True),
        sa.Column("patient", sa.String(32), nullable=False),
        sa.Column("made_of", sa.String(71), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
    )
    op.create_table(
        "labels",
        sa.Column("collection", sa.String(64), primary_key=True),
        sa.Column("series_uid", sa.String(64), primary_key=True),
        sa.Column("names", sa.String(20_000), primary_key=True),
        sa.Column("file", sa.String(71), nullable=False, index=True),
        sa.Column("source_digest", sa.String(71), nullable=False),
        sa.Column("added_at", sa.String(32), nullable=False),
        sa.Column("added_by", sa.String(64), nullable=False),
        sa.Column("outbox", sa.Integer(), sa.ForeignKey("outbox.id"), nullable=False),
    )


def downgrade() -> None:
    for table in (
        "labels", "clinical_handed", "clinical_versions", "clinical_rows", "clinical_imports", "clinical_mappings",
    ):  # fmt: skip
        op.drop_table(table)
    op.create_table(
        "clinical",
        sa.Column("collection", sa.String(64), primary_key=True),
        sa.Column("patient_id", sa.String(64), primary_key=True),
        sa.Column("accession", sa.String(64), primary_key=True),
        sa.Column("profile", sa.String(64), nullable=False),
        sa.Column("birth_date", sa.String(10)),
        sa.Column("fields", sa.JSON(), nullable=False),
        sa.Column("handed_over", sa.String(71)),
    )
