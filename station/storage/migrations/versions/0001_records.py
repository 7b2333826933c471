"""The records a station keeps: audit, egress ledger, orders, releases, counters.

Revision: 0001

Triggers hold what must never change even against a mistake in our own code: chained records, releases and orders are
not removed, and a counter does not go down (invariant I8).
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_APPEND_ONLY = ("audit_events", "egress_ledger", "releases")


def upgrade() -> None:
    for table in ("audit_events", "egress_ledger"):
        op.create_table(
            table,
            sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
            sa.Column("body", sa.LargeBinary(), nullable=False),
            sa.Column("digest", sa.String(71), nullable=False),
        )
    op.create_table(
        "orders",
        sa.Column("order_digest", sa.String(71), primary_key=True),
        sa.Column("order_id", sa.String(32), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("policy_id", sa.String(64), nullable=False),
        sa.Column("policy_version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("decided_by", sa.String(128)),
        sa.Column("code", sa.String(64)),
        sa.Column("correlation_id", sa.String(64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("started", sa.Boolean(), nullable=False),
        sa.Column("first_seen", sa.String(32), nullable=False),
        sa.Column("changed", sa.String(32), nullable=False),
        sa.Column("finished", sa.String(32)),
    )
    op.create_index("ix_orders_policy_id", "orders", ["policy_id"])
    op.create_table(
        "releases",
        sa.Column("order_digest", sa.String(71), sa.ForeignKey("orders.order_digest"), primary_key=True),
        sa.Column("round", sa.Integer(), primary_key=True),
        sa.Column("stage", sa.String(16), primary_key=True),
        sa.Column("policy_id", sa.String(64), nullable=False),
        sa.Column("reply", sa.LargeBinary(), nullable=False),
        sa.Column("arrays_digest", sa.String(71)),
        sa.Column("arrays_size", sa.Integer()),
        sa.Column("ledger_seq", sa.Integer(), sa.ForeignKey("egress_ledger.seq"), nullable=False),
        sa.Column("recorded", sa.String(32), nullable=False),
    )
    op.create_index("ix_releases_arrays_digest", "releases", ["arrays_digest"])
    op.create_table(
        "counters",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("scope", sa.String(128), primary_key=True),
        sa.Column("value", sa.Integer(), nullable=False),
    )
    _protect()


def _protect() -> None:
    for table in (*_APPEND_ONLY, "orders", "counters"):
        op.execute(
            f"CREATE TRIGGER {table}_not_removed BEFORE DELETE ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} are not removed'); END"
        )
    for table in _APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_not_changed BEFORE UPDATE ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} are not changed'); END"
        )
    op.execute(
        "CREATE TRIGGER counters_only_grow BEFORE UPDATE ON counters "
        "WHEN NEW.value < OLD.value OR NEW.name <> OLD.name OR NEW.scope <> OLD.scope "
        "BEGIN SELECT RAISE(ABORT, 'counters only grow'); END"
    )
    op.execute(
        "CREATE TRIGGER orders_keep_their_bytes BEFORE UPDATE ON orders "
        "WHEN NEW.order_digest <> OLD.order_digest OR NEW.envelope <> OLD.envelope "
        "OR NEW.policy_id <> OLD.policy_id OR NEW.failures < OLD.failures OR NEW.started < OLD.started "
        "BEGIN SELECT RAISE(ABORT, 'an order keeps its bytes and its counts'); END"
    )


def downgrade() -> None:
    for table in ("counters", "releases", "orders", "egress_ledger", "audit_events"):
        op.drop_table(table)
