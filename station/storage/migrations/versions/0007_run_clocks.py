"""How long the containers of an order ran, over restarts: what a policy's run_hours bounds.

Revision: 0007

Triggers keep it on record: nothing is removed, and what was used never becomes less.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run_clocks",
        sa.Column("order_digest", sa.String(71), primary_key=True),
        sa.Column("used_s", sa.Float(), nullable=False),
        sa.Column("running_since", sa.String(32), nullable=True),
        sa.Column("last_seen", sa.String(32), nullable=True),
        sa.Column("boot", sa.String(64), nullable=True),
    )
    op.execute(
        "CREATE TRIGGER run_clocks_no_delete BEFORE DELETE ON run_clocks "
        "BEGIN SELECT RAISE(ABORT, 'what a run used stays on record'); END"
    )
    op.execute(
        "CREATE TRIGGER run_clocks_grow BEFORE UPDATE ON run_clocks WHEN NEW.used_s < OLD.used_s "
        "BEGIN SELECT RAISE(ABORT, 'what a run used only grows'); END"
    )


def downgrade() -> None:
    op.drop_table("run_clocks")
