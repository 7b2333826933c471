"""What each patient was charged by noisy releases, and what of it was drawn.

Revision: 0008

Triggers keep it on record: nobody's charges are removed or become less, also after a withdrawal, and a draw stays as it was charged.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "privacy_spent",
        sa.Column("policy_id", sa.String(64), primary_key=True),
        sa.Column("patient", sa.String(32), primary_key=True),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "privacy_patients",
        sa.Column("patient", sa.String(32), primary_key=True),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "privacy_draws",
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("order_digest", sa.String(71), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("policy_id", sa.String(64), nullable=False),
        sa.Column("policy_version", sa.Integer(), nullable=False),
        sa.Column("outputs", sa.String(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("patients", sa.Integer(), nullable=False),
        sa.Column("charged", sa.String(32), nullable=False),
    )
    op.create_index("ix_privacy_draws_order_digest", "privacy_draws", ["order_digest"])
    op.create_index("ix_privacy_draws_policy_id", "privacy_draws", ["policy_id"])
    for table in ("privacy_spent", "privacy_patients", "privacy_draws"):
        op.execute(
            f"CREATE TRIGGER {table}_not_removed BEFORE DELETE ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table}: what was charged stays charged'); END"
        )
    for table, key in (
        ("privacy_spent", "NEW.policy_id <> OLD.policy_id OR NEW.patient <> OLD.patient"),
        ("privacy_patients", "NEW.patient <> OLD.patient"),
    ):
        op.execute(
            f"CREATE TRIGGER {table}_only_grow BEFORE UPDATE ON {table} WHEN NEW.spent < OLD.spent OR {key} "
            f"BEGIN SELECT RAISE(ABORT, '{table}: what was charged only grows'); END"
        )
    op.execute(
        "CREATE TRIGGER privacy_draws_not_changed BEFORE UPDATE ON privacy_draws "
        "BEGIN SELECT RAISE(ABORT, 'privacy_draws: a draw stays as it was charged'); END"
    )


def downgrade() -> None:
    for table in ("privacy_draws", "privacy_patients", "privacy_spent"):
        op.drop_table(table)
