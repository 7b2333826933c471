"""What is known of stations over runs: how fast they answer, how many runs at once they take."""

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Nothing yet."""
