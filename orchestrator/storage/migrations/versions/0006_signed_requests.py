"""Requests are signed by the key that they name; those of earlier versions are not."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the columns."""
    op.add_column("requests", sa.Column("envelope", sa.LargeBinary(), nullable=True))
    op.add_column("requests", sa.Column("signed", sa.Boolean(), nullable=False, server_default=sa.false()))
