"""Stations' statements, the evidence of forks, restorations; the identity key of each station."""

import sqlalchemy as sa
from alembic import op

from orchestrator.storage.dialects import BIG, append_only

revision = "0002"
down_revision = "0001"

_DIGEST = sa.String(71)
_EVIDENCE = ("statement_forks", "statement_restorations")


def upgrade() -> None:
    op.add_column("stations", sa.Column("identity_key", sa.String(64), nullable=False, server_default=""))
    op.create_table(
        "station_statements",
        sa.Column("station", sa.String(64), primary_key=True),
        sa.Column("identity_key", sa.String(64), primary_key=True),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("sequence", BIG, nullable=False),
        sa.Column("statement", _DIGEST, nullable=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.Column("receipt", sa.LargeBinary, nullable=False),
        sa.Column("audit_seq", BIG, nullable=False),
        sa.Column("egress_seq", BIG, nullable=False),
        sa.Column("received", sa.DateTime, nullable=False),
    )
    op.create_table(
        "statement_forks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("station", sa.String(64), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("standing_envelope", sa.LargeBinary, nullable=False),
        sa.Column("offered", _DIGEST, nullable=False),
        sa.Column("offered_envelope", sa.LargeBinary, nullable=False),
        sa.Column("received", sa.DateTime, nullable=False),
    )
    op.create_index("ix_statement_forks_station", "statement_forks", ["station"])
    op.create_table(
        "statement_restorations",
        sa.Column("station", sa.String(64), primary_key=True),
        sa.Column("identity_key", sa.String(64), primary_key=True),
        sa.Column("epoch", BIG, primary_key=True),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.Column("received", sa.DateTime, nullable=False),
    )
    for table in _EVIDENCE:
        append_only(op.get_bind(), table)
