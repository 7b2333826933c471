"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_DIGEST = sa.String(71)


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("secret_digest", _DIGEST, nullable=False, unique=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("revoked", sa.DateTime),
    )
    op.create_table(
        "stations",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("organisation", sa.String(4000), nullable=False),
        sa.Column("node_key", sa.String(1024), nullable=False),
        sa.Column("key_fingerprint", _DIGEST, nullable=False, unique=True),
        sa.Column("register_version", sa.Integer, nullable=False),
        sa.Column("node_id", sa.String(20)),
        sa.Column("last_seen", sa.DateTime),
    )
    op.create_table(
        "bundles",
        sa.Column("manifest_digest", _DIGEST, primary_key=True),
        sa.Column("config_digest", _DIGEST, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("index_json", sa.LargeBinary, nullable=False),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
    )
    op.create_index("ix_bundles_config", "bundles", ["config_digest"])
    op.create_index("ix_bundles_name", "bundles", ["name", "version"])
    op.create_table(
        "orders",
        sa.Column("digest", _DIGEST, primary_key=True),
        sa.Column("order_id", sa.String(32), nullable=False, unique=True),
        sa.Column("policy_id", sa.String(64), nullable=False),
        sa.Column("policy_version", sa.Integer, nullable=False),
        sa.Column("requester", sa.String(80), nullable=False),
        sa.Column("accepted", sa.DateTime, nullable=False),
    )
    op.create_table(
        "order_stations",
        sa.Column("order_digest", _DIGEST, sa.ForeignKey("orders.digest"), primary_key=True),
        sa.Column("station", sa.String(64), primary_key=True),
    )
    op.create_table(
        "blob_grants",
        sa.Column("digest", _DIGEST, primary_key=True),
        sa.Column("scope", sa.String(160), primary_key=True),
    )
    op.create_index("ix_blob_grants_scope", "blob_grants", ["scope"])
