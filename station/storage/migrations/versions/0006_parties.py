"""Orders with the requester and the purpose that every audit event about them states; the settings as last audited.

Revision: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("orders", sa.Column("requester", sa.String(128)))
    op.add_column("orders", sa.Column("purpose", sa.String(64)))
    op.add_column(
        "continuity", sa.Column("settings_digest", sa.String(71), nullable=False, server_default="")
    )


def downgrade() -> None:
    op.drop_column("continuity", "settings_digest")
    op.drop_column("orders", "purpose")
    op.drop_column("orders", "requester")
