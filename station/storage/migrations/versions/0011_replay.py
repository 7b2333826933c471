"""How long released payloads are kept: a purged release keeps its row, its digests and its place in the ledger.

Revision: 0011

A release is never changed, but that its reply goes for good when the hospital's term is over; a trigger holds that. Until now the
arrays of ended orders went without a word in their row: a counter says up to which entry of the ledger that may be so.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_KEPT = ("order_digest", "round", "stage", "policy_id", "arrays_digest", "arrays_size", "ledger_seq", "recorded", "examples")  # fmt: skip


def upgrade() -> None:
    op.add_column("releases", sa.Column("examples", sa.Integer()))
    op.add_column("releases", sa.Column("purged", sa.String(32)))
    op.execute("DROP TRIGGER releases_not_changed")
    connection = op.get_bind()
    for order, number, stage, reply in connection.execute(
        sa.text("SELECT order_digest, round, stage, reply FROM releases")
    ).all():
        connection.execute(
            sa.text(
                "UPDATE releases SET examples = :examples WHERE order_digest = :order AND round = :round AND stage = :stage"
            ),
            {
                "examples": json.loads(reply)["num_examples"],
                "order": order,
                "round": number,
                "stage": stage,
            },
        )
    connection.execute(
        sa.text(
            "INSERT INTO counters SELECT 'releases-before-purges', '', last FROM "
            "(SELECT MAX(ledger_seq) AS last FROM releases) WHERE last IS NOT NULL"
        )
    )
    same = " AND ".join(f"NEW.{column} IS OLD.{column}" for column in _KEPT)
    op.execute(
        "CREATE TRIGGER releases_not_changed BEFORE UPDATE ON releases "
        f"WHEN NOT (OLD.purged IS NULL AND NEW.purged IS NOT NULL AND length(NEW.reply) = 0 AND {same}) "
        "BEGIN SELECT RAISE(ABORT, 'releases are not changed'); END"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER releases_not_changed")
    op.drop_column("releases", "purged")
    op.drop_column("releases", "examples")
    op.execute(
        "CREATE TRIGGER releases_not_changed BEFORE UPDATE ON releases "
        "BEGIN SELECT RAISE(ABORT, 'releases are not changed'); END"
    )
