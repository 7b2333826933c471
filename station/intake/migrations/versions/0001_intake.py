"""Intake's tables: batches and files, patients and studies, instances, clinical rows, consent, outbox, audit.

Revision: 0001

Triggers keep the audit append-only even against a mistake in our own code.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("collection", sa.String(64), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.String(32), nullable=False),
        sa.Column("finished_at", sa.String(32)),
    )
    op.create_table(
        "files",
        sa.Column("batch", sa.String(40), sa.ForeignKey("batches.id"), primary_key=True),
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(40)),
        sa.Column("study_uid", sa.String(64)),
    )
    op.create_table(
        "patients",
        sa.Column("pseudonym", sa.String(32), primary_key=True),
        sa.Column("issuer", sa.String(64), nullable=False),
        sa.Column("patient_id", sa.String(64), nullable=False, index=True),
    )
    op.create_table(
        "studies",
        sa.Column("study_uid", sa.String(64), primary_key=True),
        sa.Column("patient", sa.String(32), sa.ForeignKey("patients.pseudonym"), nullable=False),
        sa.Column("accession", sa.String(64), nullable=False, index=True),
        sa.Column("study_date", sa.String(10), nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("operation", sa.String(80), nullable=False, unique=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("content", sa.LargeBinary()),
        sa.Column("sequence", sa.Integer(), index=True),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "instances",
        sa.Column("collection", sa.String(64), primary_key=True),
        sa.Column("sop_instance_uid", sa.String(64), primary_key=True),
        sa.Column("study_uid", sa.String(64), sa.ForeignKey("studies.study_uid"), nullable=False),
        sa.Column("file", sa.String(71), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.Column("outbox", sa.Integer(), sa.ForeignKey("outbox.id"), index=True),
    )
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
    op.create_table(
        "consent",
        sa.Column("patient_id", sa.String(64), primary_key=True),
        sa.Column("purpose", sa.String(64), primary_key=True),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("date", sa.String(10), nullable=False),
    )
    op.create_table(
        "consent_source",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("source_date", sa.String(32), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("handed_over", sa.String(71)),
    )
    op.create_table(
        "intake_audit",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
    )
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER intake_audit_no_{verb.lower()} BEFORE {verb} ON intake_audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END"
        )


def downgrade() -> None:
    for table in (
        "intake_audit", "consent_source", "consent", "clinical", "instances", "outbox", "studies", "patients",
        "files", "batches",
    ):  # fmt: skip
        op.drop_table(table)
