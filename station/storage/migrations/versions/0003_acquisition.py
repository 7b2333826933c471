"""The catalogue: acquisition, labels, the table of counts.

Revision: 0003
"""

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""
