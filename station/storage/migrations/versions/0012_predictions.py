"""What trains marked and measured in the hospital's own images, as far as the hospital kept it.

Revision: 0012

Triggers: a row says what was written, so it never changes and is never removed; that the object went is said once.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_WRITTEN = (
    "number", "order_digest", "round", "case", "name", "kind", "policy_id", "patient", "purposes", "sources", "file", "digest",
    "size_bytes", "kept",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "predictions",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("order_digest", sa.String(71), sa.ForeignKey("orders.order_digest"), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("case", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("policy_id", sa.String(64), nullable=False),
        sa.Column("patient", sa.String(32), nullable=False),
        sa.Column("purposes", sa.String(256), nullable=False),
        sa.Column("sources", sa.JSON(), nullable=False),
        sa.Column("file", sa.String(200), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("kept", sa.String(32), nullable=False),
        sa.Column("removed", sa.String(32), nullable=True),
        sa.Column("why", sa.String(16), nullable=True),
        sa.UniqueConstraint("order_digest", "round", "case", "name"),
    )
    op.create_index("ix_predictions_patient", "predictions", ["patient"])
    changed = " OR ".join(f'NEW."{name}" IS NOT OLD."{name}"' for name in _WRITTEN)
    _abort(
        "predictions_as_written", f"UPDATE ON predictions WHEN {changed}", "what was written never changes"
    )
    _abort(
        "predictions_go_once", "UPDATE ON predictions WHEN OLD.removed IS NOT NULL", "a prediction goes once"
    )
    _abort("predictions_no_delete", "DELETE ON predictions", "predictions stay on record")


def _abort(name: str, when: str, why: str) -> None:
    op.execute(f"CREATE TRIGGER {name} BEFORE {when} BEGIN SELECT RAISE(ABORT, '{why}'); END")


def downgrade() -> None:
    op.drop_table("predictions")
