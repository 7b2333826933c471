"""Which patients earlier releases counted, and in which cells: what later ones are held against.

Revision: 0009

Triggers hold what must not change: a number is one patient's for ever (the pseudonym may go, and never comes back), a set is what
it was, and what was told under whose name stays so. Rows may go when the hospital's term is over.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "difference_patients",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("patient", sa.String(32), unique=True),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "difference_sets",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "differences",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("requester_key", sa.String(64), nullable=False),
        sa.Column("organisation", sa.String(4000), nullable=False),
        sa.Column("order_digest", sa.String(71), nullable=False),
        sa.Column("what", sa.String(64), nullable=False),
        sa.Column("measure", sa.String(16), nullable=False),
        sa.Column("minimum", sa.Integer(), nullable=False),
        sa.Column("patients", sa.String(71), sa.ForeignKey("difference_sets.digest"), nullable=False),
        sa.Column("content", sa.String(71), sa.ForeignKey("difference_sets.digest"), nullable=False),
        sa.Column("last_told", sa.String(32), nullable=False),
        sqlite_autoincrement=True,
    )
    for column in ("patients", "content", "last_told"):
        op.create_index(f"ix_differences_{column}", "differences", [column])
    op.execute(
        "CREATE TRIGGER difference_patients_keep_their_number BEFORE UPDATE ON difference_patients "
        "WHEN NEW.number <> OLD.number OR NEW.patient IS NOT NULL "
        "BEGIN SELECT RAISE(ABORT, 'a number is one patient''s'); END"
    )
    op.execute(
        "CREATE TRIGGER difference_sets_not_changed BEFORE UPDATE ON difference_sets "
        "BEGIN SELECT RAISE(ABORT, 'difference_sets are not changed'); END"
    )
    op.execute(
        "CREATE TRIGGER differences_stay BEFORE UPDATE ON differences "
        "WHEN NEW.number <> OLD.number OR NEW.requester_key <> OLD.requester_key "
        "OR NEW.organisation <> OLD.organisation OR NEW.what <> OLD.what OR NEW.measure <> OLD.measure "
        "OR NEW.minimum <> OLD.minimum OR NEW.patients <> OLD.patients OR NEW.content <> OLD.content "
        "OR NEW.last_told < OLD.last_told "
        "BEGIN SELECT RAISE(ABORT, 'what was told stays on record'); END"
    )


def downgrade() -> None:
    for table in ("differences", "difference_sets", "difference_patients"):
        op.drop_table(table)
