"""Usage: which patients were in which cohort that a container was started on; kept when the cohort is gone.

Revision: 0004

Triggers keep what was used on record: nothing is removed, and who was in a cohort never changes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cohort_usage",
        sa.Column("order_digest", sa.String(71), primary_key=True),
        sa.Column("cohort_digest", sa.String(71), primary_key=True),
        sa.Column("policy_id", sa.String(64), nullable=False),
        sa.Column("policy_version", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(4000), nullable=False),
        sa.Column("requester", sa.String(4000), nullable=False),
        sa.Column("purpose", sa.String(64), nullable=False),
        sa.Column("first_use", sa.String(32), nullable=False),
        sa.Column("last_use", sa.String(32), nullable=False),
    )
    op.create_table(
        "cohort_usage_patients",
        sa.Column("order_digest", sa.String(71), primary_key=True),
        sa.Column("cohort_digest", sa.String(71), primary_key=True),
        sa.Column("patient", sa.String(32), primary_key=True),
        sa.ForeignKeyConstraint(
            ["order_digest", "cohort_digest"], ["cohort_usage.order_digest", "cohort_usage.cohort_digest"]
        ),
    )
    op.create_index("ix_cohort_usage_patients_patient", "cohort_usage_patients", ["patient"])
    for table, verb in (
        ("cohort_usage", "DELETE"),
        ("cohort_usage_patients", "DELETE"),
        ("cohort_usage_patients", "UPDATE"),
    ):
        op.execute(
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            "BEGIN SELECT RAISE(ABORT, 'what was used stays on record'); END"
        )


def downgrade() -> None:
    op.drop_table("cohort_usage_patients")
    op.drop_table("cohort_usage")
