"""A review: one parked release, what it is held to and what people said about it; read from its rows."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.documents import digest_of_file
from policies.errors import NotFoundError, StateError, UsageError
from policies.order import Stage
from policies.refusals import RefusalCode
from station.egress.review.parked import ParkedRelease
from station.egress.review.tables import ReviewRow, ReviewWordRow

_OPERATOR: Final = re.compile(r"[A-Za-z0-9_.@-]{1,100}")
MAX_REASON: Final = 500


class ReviewState(StrEnum):
    """Where a parked release stands."""

    WAITING = "waiting"
    RELEASED = "released"
    WITHHELD = "withheld"
    LAPSED = "lapsed"


@dataclass(frozen=True, slots=True)
class ReviewTerms:
    """What a review is held to.

    Attributes:
        people: how many must release it.
        patience: how long it waits.
        policy: id and version, under which it was ordered.
        on_behalf_of, purpose: as the audit states them.
    """

    people: int
    patience: timedelta
    policy: tuple[str, int]
    on_behalf_of: str | None
    purpose: str | None


@dataclass(frozen=True, slots=True)
class Word:
    """What one person said."""

    operator: str
    word: str
    reason: str
    said: datetime


@dataclass(frozen=True, slots=True)
class Review:
    """One parked release and what was said about it.

    Attributes:
        number: what operators call it.
        code: why it did not leave; None while it waits and when it left.
        told: whether the orchestrator has heard how it ended.
    """

    number: int
    order_digest: str
    round: int
    stage: Stage
    policy_id: str
    policy_version: int
    requester: str | None
    purpose: str | None
    document_digest: str
    arrays_digest: str | None
    arrays_size: int | None
    people: int
    parked: datetime
    until: datetime
    state: ReviewState
    code: RefusalCode | None
    ended: datetime | None
    told: bool
    words: tuple[Word, ...]

    @property
    def released_by(self) -> tuple[str, ...]:
        """Who said release."""
        return tuple(word.operator for word in self.words if word.word == "release")


@dataclass(frozen=True, slots=True)
class Payload:
    """What would leave: the document, and the file of arrays beside it."""

    document: ParkedRelease
    arrays: Path | None


def operator_of(name: str) -> str:
    """Return a person's name as the audit writes it.

    Raises:
        UsageError: nothing of it is left.
    """
    cleaned = re.sub(r"[^A-Za-z0-9_.@-]", "_", name)[:100]
    if not _OPERATOR.fullmatch(cleaned) or not cleaned.strip("_"):
        raise UsageError("an operator has a name", hint="Log in as a user of your own.")
    return cleaned


def person_of(operator: str) -> str:
    """Return who an operator is: who is the same but for capitals is the same."""
    return operator.casefold()


def over(state: ReviewState, code: RefusalCode | None = None) -> UsageError:
    """Return the error of who speaks about what waits no longer."""
    why = f" ({code})" if code is not None else ""
    return UsageError(
        f"it waits no longer: {state}{why}", hint="`pht-station review list --all` shows how each ended."
    )


def changed() -> StateError:
    """Return the error of a payload that is not what was parked."""
    return StateError(
        "what waits is not what was parked",
        hint="Withhold it, look at the station's disk, and have the run ordered again.",
    )


def is_whole(path: Path | None, row: ReviewRow) -> bool:
    """Tell whether a parked file has the bytes that it was parked with."""
    if path is None:
        return True
    try:
        return path.stat().st_size == row.arrays_size and digest_of_file(path) == row.arrays_digest
    except FileNotFoundError:
        return False


def row_of(session: Session, number: int) -> ReviewRow:
    """Return a review's row.

    Raises:
        NotFoundError: there is none of that number.
    """
    row = session.get(ReviewRow, number)
    if row is None:
        raise NotFoundError("no such review", hint="`pht-station review list` lists them.")
    return row


def standing(session: Session, order_digest: str, round_: int, stage: str) -> ReviewRow | None:
    """Return the row that answers a message; what lapsed does not."""
    return session.scalar(
        select(ReviewRow).where(
            ReviewRow.order_digest == order_digest,
            ReviewRow.round == round_,
            ReviewRow.stage == stage,
            ReviewRow.state != ReviewState.LAPSED.value,
        )
    )


def review_of(session: Session, row: ReviewRow) -> Review:
    """Return a row with what was said about it."""
    words = session.scalars(
        select(ReviewWordRow).where(ReviewWordRow.number == row.number).order_by(ReviewWordRow.id)
    )
    stages: dict[str, Stage] = {"train": "train", "evaluate": "evaluate", "analyse": "analyse"}
    return Review(
        number=row.number,
        order_digest=row.order_digest,
        round=row.round,
        stage=stages[row.stage],
        policy_id=row.policy_id,
        policy_version=row.policy_version,
        requester=row.requester,
        purpose=row.purpose,
        document_digest=row.document_digest,
        arrays_digest=row.arrays_digest,
        arrays_size=row.arrays_size,
        people=row.people,
        parked=row.parked,
        until=row.until,
        state=ReviewState(row.state),
        code=None if row.code is None else RefusalCode(row.code),
        ended=row.ended,
        told=row.told,
        words=tuple(Word(word.operator, word.word, word.reason, word.said) for word in words),
    )
