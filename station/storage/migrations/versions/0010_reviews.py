"""Releases that wait for a person, and what was said about them.

Revision: 0010

Triggers: what was parked never changes, nothing is removed, a review ends once, its payload goes only then, words stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_PARKED = (
    "number", "order_digest", "round", "stage", "policy_id", "policy_version", "requester", "purpose", "document_digest", "arrays_digest",
    "arrays_size", "people", "parked", "until",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "reviews",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("order_digest", sa.String(71), sa.ForeignKey("orders.order_digest"), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("policy_id", sa.String(64), nullable=False),
        sa.Column("policy_version", sa.Integer(), nullable=False),
        sa.Column("requester", sa.String(128), nullable=True),
        sa.Column("purpose", sa.String(64), nullable=True),
        sa.Column("document", sa.LargeBinary(), nullable=True),
        sa.Column("document_digest", sa.String(71), nullable=False),
        sa.Column("arrays_digest", sa.String(71), nullable=True),
        sa.Column("arrays_size", sa.Integer(), nullable=True),
        sa.Column("people", sa.Integer(), nullable=False),
        sa.Column("parked", sa.String(32), nullable=False),
        sa.Column("until", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("code", sa.String(64), nullable=True),
        sa.Column("ended", sa.String(32), nullable=True),
        sa.Column("told", sa.Boolean(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "reviews_one_answer",
        "reviews",
        ["order_digest", "round", "stage"],
        unique=True,
        sqlite_where=sa.text("state != 'lapsed'"),
    )
    op.create_table(
        "review_words",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("number", sa.Integer(), sa.ForeignKey("reviews.number"), nullable=False),
        sa.Column("person", sa.String(128), nullable=False),
        sa.Column("operator", sa.String(128), nullable=False),
        sa.Column("word", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("said", sa.String(32), nullable=False),
        sa.UniqueConstraint("number", "person", "word"),
    )
    changed = " OR ".join(f"NEW.{name} IS NOT OLD.{name}" for name in _PARKED)
    _abort("reviews_as_parked", f"UPDATE ON reviews WHEN {changed}", "what was parked never changes")
    _abort(
        "reviews_end_once",
        "UPDATE ON reviews WHEN OLD.state != 'waiting' AND (NEW.state != OLD.state OR NEW.code IS NOT OLD.code "
        "OR NEW.ended IS NOT OLD.ended)",
        "a review ends once",
    )
    _abort(
        "reviews_payload",
        "UPDATE ON reviews WHEN NEW.document IS NOT OLD.document "
        "AND (NEW.document IS NOT NULL OR NEW.state = 'waiting')",
        "what waits is kept as it was parked",
    )
    _abort("reviews_no_delete", "DELETE ON reviews", "reviews stay on record")
    _abort("review_words_no_delete", "DELETE ON review_words", "what was said stays on record")
    _abort("review_words_no_update", "UPDATE ON review_words", "what was said stays on record")


def _abort(name: str, when: str, why: str) -> None:
    op.execute(f"CREATE TRIGGER {name} BEFORE {when} BEGIN SELECT RAISE(ABORT, '{why}'); END")


def downgrade() -> None:
    op.drop_table("review_words")
    op.drop_table("reviews")
