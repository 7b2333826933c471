"""The queue of releases that wait for a person.

    parked ──enough people released it──> released   (recorded in the same transaction, `station.runs.reviewing`)
       ├─────a person withheld it───────> withheld   REVIEW_WITHHELD
       ├─────its time is over───────────> withheld   REVIEW_TIMEOUT
       └─────it may not leave any more──> lapsed     a patient withdrew, the policy is gone, the run was stopped

Decides nothing about consent or policy. Invariants: a release is durable, with its audit event, before anybody is told that it
waits; what was parked never changes; a review ends once, and what it ends with is durable before its payload goes.
"""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.documents import digest_of
from policies.errors import UsageError
from policies.order import Stage
from policies.refusals import RefusalCode, Refused
from station.audit.events import AuditEvent
from station.audit.log import AuditLog, system_clock
from station.egress.records.tables import ReleaseRow
from station.egress.release import Release, ReleasedArrays
from station.egress.review.events import STATION, end_event, release_event, word_event
from station.egress.review.files import ParkedFiles
from station.egress.review.parked import ParkedRelease, decode_parked, encode_parked
from station.egress.review.reviews import (
    MAX_REASON,
    Payload,
    Review,
    ReviewState,
    ReviewTerms,
    changed,
    is_whole,
    over,
    person_of,
    review_of,
    row_of,
    standing,
)
from station.egress.review.tables import ReviewRow, ReviewWordRow
from station.steady import SteadyClock
from station.storage.database import Database
from station.storage.files import storage_fault


class ReviewQueue:
    """Parks releases and remembers what people said.

    Args:
        database: the station's compute database.
        audit: the station's audit log, over the same database.
        folder: for the arrays, see `ParkedFiles`.
        clock: returns the moment it is.
        monotonic: the clock that nobody sets; against it, a leap of the other is seen.
    """

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        folder: Path,
        clock: Callable[[], datetime] = system_clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock
        self._steady = SteadyClock(clock, monotonic)
        self.files = ParkedFiles(database, folder, clock)

    # -- parking ---------------------------------------------------------------------------------------------

    def park(
        self,
        release: Release,
        document: ParkedRelease,
        terms: ReviewTerms,
        check: Callable[[Session], Refused | None],
    ) -> Review | Refused | None:
        """Keep a release until people have said what becomes of it.

        1. Where an answer stands (recorded, waiting or withheld), it stays and the new one is dropped.
        2. `check` permits it, inside the transaction.
        3. Audit event, document and arrays become durable together.

        Returns:
            The review, the one that stood before where one did; None where the answer is a recorded release.

        Raises:
            StorageError: nothing was parked.
        """
        # Encoded before the transaction: nobody else writes meanwhile.
        data, placed = encode_parked(document), False
        with self._database.write() as session:
            key = (release.order_digest, release.round, release.stage)
            if session.get(ReleaseRow, key) is not None:
                outcome: Review | Refused | None = None
            elif (row := standing(session, *key)) is not None:
                outcome = review_of(session, row)
            elif refused := check(session):
                codes = tuple(reason.code.value for reason in refused.reasons)
                self._audit.append_in(
                    session, release_event(AuditEvent.RELEASE_REFUSED, release, terms, codes)
                )
                outcome = refused
            else:
                row = self._insert(session, release, data, terms)
                if release.arrays is not None:
                    # Not undone when the transaction fails: the next sweep removes it, or the next one of its number takes its place.
                    self.files.take(row.number, release.arrays)
                    placed = True
                outcome = review_of(session, row)
        if release.arrays is not None and not placed:
            release.arrays.path.unlink(missing_ok=True)
        return outcome

    def _insert(self, session: Session, release: Release, data: bytes, terms: ReviewTerms) -> ReviewRow:
        now, arrays = self._clock(), release.arrays
        row = ReviewRow(
            order_digest=release.order_digest,
            round=release.round,
            stage=release.stage,
            policy_id=terms.policy[0],
            policy_version=terms.policy[1],
            requester=terms.on_behalf_of,
            purpose=terms.purpose,
            document=data,
            document_digest=digest_of(data),
            arrays_digest=None if arrays is None else arrays.digest,
            arrays_size=None if arrays is None else arrays.size,
            people=terms.people,
            parked=now,
            until=now + terms.patience,
            state=ReviewState.WAITING.value,
            code=None,
            ended=None,
            told=False,
        )
        session.add(row)
        session.flush()
        self._audit.append_in(session, release_event(AuditEvent.RELEASE_PARKED, release, terms, (), row))
        return row

    # -- reading ---------------------------------------------------------------------------------------------

    def get(self, number: int) -> Review:
        """Return a review.

        Raises:
            NotFoundError: there is none of that number.
        """
        with self._database.read() as session:
            return self.get_in(session, number)

    def get_in(self, session: Session, number: int) -> Review:
        """Return a review as the caller's transaction sees it, see `get`."""
        return review_of(session, row_of(session, number))

    def list(self, states: tuple[ReviewState, ...] = tuple(ReviewState)) -> list[Review]:
        """Return the reviews in these states, oldest first."""
        query = select(ReviewRow).where(ReviewRow.state.in_([state.value for state in states]))
        with self._database.read() as session:
            return [review_of(session, row) for row in session.scalars(query.order_by(ReviewRow.number))]

    def find(self, order_digest: str, round_: int, stage: Stage) -> Review | None:
        """Return the newest review of a message, or None where its answer was never parked."""
        query = select(ReviewRow).where(
            ReviewRow.order_digest == order_digest, ReviewRow.round == round_, ReviewRow.stage == stage
        )
        with self._database.read() as session:
            row = session.scalar(query.order_by(ReviewRow.number.desc()).limit(1))
            return None if row is None else review_of(session, row)

    def waits(self, order_digest: str) -> bool:
        """Whether a release of an order waits for a person."""
        query = select(ReviewRow.number).where(
            ReviewRow.order_digest == order_digest, ReviewRow.state == ReviewState.WAITING.value
        )
        with self._database.read() as session:
            return session.scalar(query.limit(1)) is not None

    def payload(self, number: int) -> Payload:
        """Return what would leave, held to the digests it was parked under.

        Raises:
            NotFoundError: no such review.
            UsageError: it does not wait any more: its payload is gone.
            StateError: it is not what was parked.
        """
        with self._database.read() as session:
            row = row_of(session, number)
        document = self.document(number)
        path = self.files.path(number) if row.arrays_digest is not None else None
        if not is_whole(path, row):
            self.still_waiting(number)
            raise changed()
        return Payload(document, path)

    def still_waiting(self, number: int) -> None:
        """Look once more, where something of a review is not there: another word may have ended it meanwhile.

        Raises:
            UsageError: it does not wait any more.
        """
        review = self.get(number)
        if review.state is not ReviewState.WAITING:
            raise over(review.state, review.code)

    def document(self, number: int) -> ParkedRelease:
        """Return what would leave without its arrays; raises what `payload` does."""
        with self._database.read() as session:
            row = row_of(session, number)
            document = row.document
        if document is None:
            raise over(ReviewState(row.state), None if row.code is None else RefusalCode(row.code))
        if digest_of(document) != row.document_digest:
            raise changed()
        return decode_parked(document)

    def arrays_of(self, review: Review, payload: Payload, path: Path) -> ReleasedArrays | None:
        """Return the parked arrays as a release holds them, under another name.

        The parked file stays where it is until the release is recorded: a crash in between loses nothing.

        Args:
            review: whose.
            payload: its payload.
            path: the name; in a folder that is emptied at start, on the same file system.
        """
        if payload.arrays is None or review.arrays_digest is None or review.arrays_size is None:
            return None
        try:
            path.unlink(missing_ok=True)
            path.hardlink_to(payload.arrays)
        except FileNotFoundError as error:
            self.still_waiting(review.number)
            raise storage_fault(error, path.name) from error
        except OSError as error:
            raise storage_fault(error, path.name) from error
        return ReleasedArrays(path, review.arrays_digest, review.arrays_size)

    # -- words -----------------------------------------------------------------------------------------------

    def problem_in(self, session: Session, number: int, operator: str) -> UsageError | None:
        """Return why a person cannot say anything about a review, inside the caller's transaction."""
        review = self.get_in(session, number)
        if review.state is not ReviewState.WAITING:
            return over(review.state, review.code)
        if self._clock() >= review.until:
            return over(ReviewState.WITHHELD, RefusalCode.REVIEW_TIMEOUT)
        if person_of(operator) in {person_of(word.operator) for word in review.words}:
            return UsageError(
                f"{operator} has released it already",
                hint=f"{review.people} different people have to; another one of them has to say so too.",
            )
        return None

    def say_in(
        self, session: Session, number: int, operator: str, word: str, reason: str = "", missing: int = 0
    ) -> None:
        """Write a person's word into the caller's transaction, audited.

        Args:
            session: the caller's.
            number: which review.
            operator: who, as `operator_of` returns it.
            word: release or withhold.
            reason: theirs; it stays inside.
            missing: how many more have to release it.
        """
        row = row_of(session, number)
        session.add(
            ReviewWordRow(
                number=number,
                person=person_of(operator),
                operator=operator,
                word=word,
                reason=reason,
                said=self._clock(),
            )
        )
        session.flush()
        self._audit.append_in(
            session,
            word_event(row, operator, f"{word}: {reason}" if reason else word, missing),
        )

    def say(self, number: int, operator: str, people: int) -> bool:
        """Write that a person releases it, unless that is the last word it needs.

        Returns:
            Whether it was written; where not, the word goes into the transaction that records the release.

        Raises:
            NotFoundError, UsageError: as `problem_in` says.
        """
        with self._database.write() as session:
            if problem := self.problem_in(session, number, operator):
                raise problem
            missing = self.missing_in(session, number, people) - 1
            if missing > 0:
                self.say_in(session, number, operator, "release", missing=missing)
            return missing > 0

    def missing_in(self, session: Session, number: int, people: int) -> int:
        """Return how many more people have to release a review, inside the caller's transaction."""
        review = self.get_in(session, number)
        return max(review.people, people) - len(review.released_by)

    def release_in(self, session: Session, number: int) -> None:
        """Say that a review's release is recorded, inside the transaction that records it."""
        self._end_in(session, row_of(session, number), ReviewState.RELEASED, None)

    # -- ends ------------------------------------------------------------------------------------------------

    def withhold(self, number: int, operator: str, reason: str) -> Review:
        """End a review by a person's word: one is enough.

        Raises:
            NotFoundError: no such review.
            UsageError: it does not wait any more, or no reason is given.
        """
        reason = reason.strip()
        if not 0 < len(reason) <= MAX_REASON:
            raise UsageError(f"a reason has 1 to {MAX_REASON} characters", hint="It stays in the hospital.")
        with self._database.write() as session:
            review = self.get_in(session, number)
            if review.state is not ReviewState.WAITING:
                raise over(review.state, review.code)
            self.say_in(session, number, operator, "withhold", reason)
            row = row_of(session, number)
            self._end_in(session, row, ReviewState.WITHHELD, RefusalCode.REVIEW_WITHHELD)
            self._audit.append_in(
                session, end_event(AuditEvent.RELEASE_WITHHELD, row, f"operator:{operator}", reason)
            )
            ended = review_of(session, row)
        self.files.wipe(number)
        return ended

    def end(self, number: int, code: RefusalCode, detail: str = "") -> Review:
        """End a review by the station's own rules, where it still waits; its payload is wiped.

        Args:
            number: which.
            code: REVIEW_TIMEOUT, or why it may not leave any more.
            detail: for the audit.
        """
        timed_out = code is RefusalCode.REVIEW_TIMEOUT
        with self._database.write() as session:
            row = row_of(session, number)
            if row.state == ReviewState.WAITING.value:
                self._end_in(session, row, ReviewState.WITHHELD if timed_out else ReviewState.LAPSED, code)
                event = AuditEvent.RELEASE_WITHHELD if timed_out else AuditEvent.REVIEW_LAPSED
                self._audit.append_in(session, end_event(event, row, STATION, detail))
            ended = review_of(session, row)
        self.files.wipe(number)
        return ended

    def is_over(self, review: Review) -> bool:
        """Whether a review's time is over, so that it ends for good; a leap of the clock is not believed at once."""
        return self._steady() >= review.until

    def told(self, number: int) -> None:
        """Remember that the orchestrator has heard how a review ended."""
        with self._database.write() as session:
            row_of(session, number).told = True

    def _end_in(self, session: Session, row: ReviewRow, state: ReviewState, code: RefusalCode | None) -> None:
        row.state, row.code, row.ended = state.value, None if code is None else code.value, self._clock()
        # With its end its payload goes: what was released is recorded, what was not must not be.
        row.document = None
        session.flush()
        self.files.one_ended()
