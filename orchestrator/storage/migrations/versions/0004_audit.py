"""The orchestrator's own audit: a hash chain of who did what."""

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Nothing yet."""
