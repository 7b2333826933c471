"""The consent register in full: imports, every decision they stated, what is known of the patients.

Revision: 0003

Decisions of the first version's state table become the statements of one import. Triggers keep the decisions append-only.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_EMPTY = "sha256:" + "0" * 64


def upgrade() -> None:
    op.create_table(
        "consent_imports",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("format", sa.String(8), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("source_date", sa.String(32), nullable=False),
        sa.Column("imported_at", sa.String(32), nullable=False),
        sa.Column("decisions", sa.Integer(), nullable=False),
    )
    op.create_table(
        "consent_decisions",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("import_id", sa.Integer(), sa.ForeignKey("consent_imports.id"), nullable=False),
        sa.Column("stated", sa.Boolean(), nullable=False),
        sa.Column("issuer", sa.String(64), nullable=False),
        sa.Column("patient_id", sa.String(64), nullable=False, index=True),
        sa.Column("purpose", sa.String(64), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("made", sa.String(10), nullable=False),
        sa.Column("given_by", sa.String(16), nullable=False),
        sa.Column("valid_from", sa.String(10)),
        sa.Column("valid_until", sa.String(10)),
    )
    op.create_table(
        "consent_patients",
        sa.Column("issuer", sa.String(64), primary_key=True),
        sa.Column("patient_id", sa.String(64), primary_key=True),
        sa.Column("birth_date", sa.String(10)),
        sa.Column("deceased", sa.String(10)),
    )
    op.execute(
        "INSERT INTO consent_imports (id, format, digest, source_date, imported_at, decisions) "  # noqa: S608 - a constant of ours
        f"SELECT 1, 'csv', '{_EMPTY}', source_date, source_date, (SELECT count(*) FROM consent) "
        "FROM consent_source"
    )
    op.execute(
        "INSERT INTO consent_decisions "
        "(import_id, stated, issuer, patient_id, purpose, decision, made, given_by) "
        "SELECT 1, 1, '', patient_id, purpose, decision, date, 'patient' FROM consent"
    )
    op.drop_table("consent")
    op.add_column("consent_source", sa.Column("looked_at", sa.String(71)))
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER consent_decisions_no_{verb.lower()} BEFORE {verb} ON consent_decisions "
            "BEGIN SELECT RAISE(ABORT, 'the register of decisions is append-only'); END"
        )


def downgrade() -> None:
    op.drop_column("consent_source", "looked_at")
    op.create_table(
        "consent",
        sa.Column("patient_id", sa.String(64), primary_key=True),
        sa.Column("purpose", sa.String(64), primary_key=True),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("date", sa.String(10), nullable=False),
    )
    for table in ("consent_patients", "consent_decisions", "consent_imports"):
        op.drop_table(table)
