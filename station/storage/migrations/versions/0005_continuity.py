"""Continuity: the station's statements about its records, and whether those are the newest there were.

Revision: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "statements",
        sa.Column("sequence", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("audit_seq", sa.Integer(), nullable=False),
        sa.Column("egress_seq", sa.Integer(), nullable=False),
        sa.Column("made", sa.String(32), nullable=False),
        sa.Column("receipt", sa.LargeBinary()),
    )
    op.create_index("ix_statements_digest", "statements", ["digest"])
    op.create_table(
        "continuity",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("restored", sa.Boolean(), nullable=False),
        sa.Column("problem", sa.String(300), nullable=False),
        sa.Column("evidence", sa.LargeBinary()),
        sa.Column("detected", sa.String(32)),
        sa.Column("consent_floor", sa.Integer()),
        sa.Column("restoration", sa.LargeBinary()),
        sa.Column("reconciled", sa.String(32)),
        sa.Column("heads", sa.LargeBinary()),
        sa.Column("heads_time", sa.String(32)),
        sa.Column("witnessed_epoch", sa.Integer(), nullable=False),
        sa.Column("witnessed_sequence", sa.Integer(), nullable=False),
        sa.Column("witnessed_made", sa.String(32)),
        sa.Column("notary_key", sa.String(64), nullable=False),
        sa.Column("trust_root", sa.Integer(), nullable=False),
        sa.Column("trust_timestamp", sa.Integer(), nullable=False),
        sa.Column("trust_targets", sa.Integer(), nullable=False),
        sa.Column("trust_register", sa.Integer(), nullable=False),
    )
    op.create_table(
        "restored_orders",
        sa.Column("order_digest", sa.String(71), primary_key=True),
        sa.Column("releases", sa.Integer(), nullable=False),
        sa.Column("reconciled", sa.String(32), nullable=False),
    )
    for table in ("continuity", "restored_orders"):
        op.execute(
            f"CREATE TRIGGER {table}_not_removed BEFORE DELETE ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table}: nothing is removed'); END"
        )
    op.execute(
        "CREATE TRIGGER continuity_only_grows BEFORE UPDATE ON continuity WHEN NEW.epoch < OLD.epoch "
        "OR NEW.trust_root < OLD.trust_root OR NEW.trust_timestamp < OLD.trust_timestamp "
        "OR NEW.trust_targets < OLD.trust_targets OR NEW.trust_register < OLD.trust_register "
        "OR NEW.heads_time < OLD.heads_time OR NEW.reconciled < OLD.reconciled "
        "BEGIN SELECT RAISE(ABORT, 'what the station has seen never goes back'); END"
    )


def downgrade() -> None:
    for table in ("restored_orders", "continuity", "statements"):
        op.drop_table(table)
