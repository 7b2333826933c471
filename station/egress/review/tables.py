"""Releases that wait for a person, and the words that were said about them.

What was parked never changes, a review ends once, and words stay (triggers hold that). Its payload goes when it ends.
"""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from station.storage.schema import Base, UtcTime


class ReviewRow(Base):
    """One release that was parked; `document` is gone when it no longer waits."""

    __tablename__ = "reviews"
    __table_args__ = (
        # One answer to (order, round, stage); what lapsed may be made anew.
        Index(
            "reviews_one_answer",
            "order_digest",
            "round",
            "stage",
            unique=True,
            sqlite_where=text("state != 'lapsed'"),
        ),
        {"sqlite_autoincrement": True},
    )

    number: Mapped[int] = mapped_column(primary_key=True)
    order_digest: Mapped[str] = mapped_column(String(71), ForeignKey("orders.order_digest"))
    round: Mapped[int]
    stage: Mapped[str] = mapped_column(String(16))
    policy_id: Mapped[str] = mapped_column(String(64))
    policy_version: Mapped[int]
    requester: Mapped[str | None] = mapped_column(String(128))
    purpose: Mapped[str | None] = mapped_column(String(64))
    # Tens of megabytes: read where it is asked for by name, never with its row.
    document: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    document_digest: Mapped[str] = mapped_column(String(71))
    arrays_digest: Mapped[str | None] = mapped_column(String(71))
    arrays_size: Mapped[int | None]
    people: Mapped[int]
    parked: Mapped[datetime] = mapped_column(UtcTime)
    until: Mapped[datetime] = mapped_column(UtcTime)
    state: Mapped[str] = mapped_column(String(16))
    code: Mapped[str | None] = mapped_column(String(64))
    ended: Mapped[datetime | None] = mapped_column(UtcTime)
    told: Mapped[bool]


class ReviewWordRow(Base):
    """What one person said about one parked release; nobody says it twice."""

    __tablename__ = "review_words"
    __table_args__ = (UniqueConstraint("number", "person", "word"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(ForeignKey("reviews.number"))
    person: Mapped[str] = mapped_column(String(128))
    operator: Mapped[str] = mapped_column(String(128))
    word: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(500))
    said: Mapped[datetime] = mapped_column(UtcTime)
