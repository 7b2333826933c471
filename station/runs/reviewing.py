"""A person's word on a release: parked after the guard, looked at once more when it is given, wiped when it may not leave.

    Release ──park──> waiting ──enough words, and consent, policy, run and time still permit──> recorded, as it was parked
                         └──── time over, withheld, a patient withdrew, the policy or the run is over ──> wiped

The queue (`station.egress.review`) remembers; here every rule is asked that a run's own record transaction asks, of what the
parked release itself says, since the run need not be warm any more. Invariant: a release of a train that is to be reviewed has no
other way out.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy.orm import Session

from policies.errors import NotFoundError, PhtError, RefusedError, StateError, UsageError
from policies.manifest import TrainKind, TrainManifest
from policies.policy import Policy
from policies.refusals import Reason, RefusalCode, Refused
from policies.wire.instructions import Instruction, Status, encode
from station.admission.gatekeeper import Gatekeeper, VerifiedOrder
from station.catalogue import Standing
from station.catalogue.catalogue import Catalogue
from station.egress.guard import release_again
from station.egress.records.releases import ChainDigests, ReleaseStore, ReleaseTerms
from station.egress.release import Release, ReplyStamp, released_reply
from station.egress.review.parked import ParkedRelease, UsedData, parked
from station.egress.review.queue import ReviewQueue
from station.egress.review.reviews import Review, ReviewState, ReviewTerms, operator_of
from station.runs.differing import Differing
from station.runs.repository import Run, RunRepository
from station.runs.states import TERMINAL, Decision, RunState
from station.settings import StationSettings

log = logging.getLogger(__name__)

_FOR_GOOD: Final = frozenset(
    {
        RefusalCode.CONSENT_WITHDRAWN,
        RefusalCode.POLICY_REVOKED,
        RefusalCode.POLICY_MISSING,
        RefusalCode.POLICY_EXPIRED,
        RefusalCode.POLICY_DIGEST,
        RefusalCode.REQUESTER_REVOKED,
        RefusalCode.STATION_REVOKED,
        RefusalCode.ORDER_EXPIRED,
        RefusalCode.ORDER_SPENT,
        RefusalCode.RUN_STOPPED,
        RefusalCode.BUDGET_RELEASES,
    }
)
"""Refusals that no waiting mends: what is parked lapses. Under any other it waits on, until its time is over."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What was verified about a parked release once, so that looking again asks no network."""

    verified: VerifiedOrder
    manifest: TrainManifest
    used: Standing | None


@dataclass(frozen=True, slots=True)
class Reviewing:
    """Parks releases, and lets people release or withhold them.

    Attributes:
        work: a folder that is emptied at start, on the file system of the queue's and the releases'.
    """

    settings: StationSettings
    gatekeeper: Gatekeeper
    catalogue: Catalogue
    runs: RunRepository
    releases: ReleaseStore
    differing: Differing
    queue: ReviewQueue
    work: Path
    _known: dict[int, _Known] = field(default_factory=dict)

    def is_asked(self, kind: TrainKind, policy: Policy) -> bool:
        """Whether releases of such a train under this policy wait for a person."""
        return policy.release.human_review or self.settings.needs_review(kind)

    # -- messages --------------------------------------------------------------------------------------------

    def park(
        self,
        release: Release,
        run: Run,
        policy: Policy,
        used: Standing,
        stamp: tuple[int, float],
        check: Callable[[Session], Refused | None],
    ) -> Review | Refused | None:
        """Keep a release until people have spoken.

        Args:
            release: from the guard.
            run: of its order.
            policy: under which it was ordered.
            used: what its cohort was frozen from.
            stamp: attempt and seconds of the reply.
            check: the last look of a run that is warm, inside the transaction.

        Returns:
            What now answers the message; None where a recorded release does.
        """
        hours = policy.release.review_hours
        if self.settings.review.hours is not None:
            hours = min(hours, self.settings.review.hours)
        document = parked(
            release,
            attempt=stamp[0],
            compute_s=stamp[1],
            used=UsedData(
                patients=tuple(sorted(used.patients)),
                files=tuple(sorted(used.files, key=lambda item: (item[0], item[1], item[2] or ""))),
            ),
        )
        terms = ReviewTerms(
            people=self.settings.review.people,
            patience=timedelta(hours=hours),
            policy=(policy.id, policy.version),
            on_behalf_of=run.requester,
            purpose=run.purpose,
        )
        return self.queue.park(release, document, terms, check)

    def answer(self, instruction: Instruction) -> tuple[Status, RefusalCode] | None:
        """Return what a message is answered whose answer was parked; None where the train is to be asked.

        Waiting: the same until it is decided. Withheld: for good. Lapsed: said once, as of a message whose container was ended;
        asked again, the train works again on what may be used then.
        """
        stages = {"train", "evaluate", "analyse"}
        if instruction.kind.value not in stages:
            return None
        review = self._of(instruction)
        if review is None or review.state is ReviewState.RELEASED:
            return None
        if review.state is ReviewState.WAITING:
            if not self.queue.is_over(review):
                return Status.PENDING, RefusalCode.REVIEW_PENDING
            review = self._end(review, RefusalCode.REVIEW_TIMEOUT, "nobody released it in time")
        code = review.code or RefusalCode.REVIEW_WITHHELD
        if review.state is ReviewState.WITHHELD:
            return Status.WITHHELD, code
        if review.told:
            return None
        self.queue.told(review.number)
        return Status.FAILED, code

    def is_first_answer(self, instruction: Instruction) -> bool:
        """Whether a recorded release answers its message for the first time, since it waited for a person; true once."""
        review = self._of(instruction)
        if review is None or review.state is not ReviewState.RELEASED or review.told:
            return False
        self.queue.told(review.number)
        return True

    def waits(self, order_digest: str) -> bool:
        """Whether a release of an order waits for a person."""
        return self.queue.waits(order_digest)

    def _of(self, instruction: Instruction) -> Review | None:
        for stage in ("train", "evaluate", "analyse"):
            if instruction.kind.value == stage:
                return self.queue.find(instruction.order_digest, instruction.round, stage)
        return None

    # -- people ----------------------------------------------------------------------------------------------

    def release(self, number: int, actor: str) -> Review:
        """Take a person's word that a release may leave; the last one that is needed records it, exactly as it was parked.

        1. It waits, in time, and this person has not said so before.
        2. Where others have to say so too, the word is recorded and no more.
        3. Else run, policy, revocation and consent are asked again in the transaction that records word and release.

        Raises:
            NotFoundError: no such review.
            UsageError: it waits no longer, or this person has said so already.
            RefusedError: it may not leave now; where that is for good, it was wiped.
            StateError: what waits is not what was parked.
            StorageError: nothing was recorded.
        """
        operator, review = operator_of(actor), self.queue.get(number)
        if review.state is ReviewState.WAITING and self.queue.is_over(review):
            self._end(review, RefusalCode.REVIEW_TIMEOUT, "nobody released it in time")
        if self.queue.say(number, operator, self.settings.review.people):
            return self.queue.get(number)
        # What a transaction cannot wait for comes first: a new consent state, a new policy set; the order is verified again.
        self.catalogue.sync()
        self.gatekeeper.policy_set(fresh=False)
        self._forget(number)
        known = self._know(review)
        refused = known if isinstance(known, Refused) else self._record(review, operator, known)
        if refused is not None:
            if refused.code in _FOR_GOOD:
                self._end(review, refused.code, refused.reasons[0].detail)
                raise RefusedError(refused.code.value, "it may not leave any more, and was wiped")
            raise RefusedError(refused.code.value, "it may not leave now; it waits on")
        self._forget(number)
        self.queue.files.wipe(number)
        return self.queue.get(number)

    def withhold(self, number: int, actor: str, reason: str) -> Review:
        """Take a person's word that a release must not leave; one is enough.

        Raises:
            NotFoundError: no such review.
            UsageError: it waits no longer, or no reason is given.
        """
        ended = self.queue.withhold(number, operator_of(actor), reason)
        self._forget(number)
        return ended

    def _record(self, review: Review, operator: str, known: _Known) -> Refused | None:
        run = self._run(review)
        payload = self.queue.payload(review.number)
        link = self.work / f"review-{review.number}-{secrets.token_hex(4)}.safetensors"
        release = release_again(payload.document, self.queue.arrays_of(review, payload, link))
        policy = known.verified.in_force.policy

        def make_reply(chains: ChainDigests) -> bytes:
            return encode(released_reply(release, _stamp(payload.document, run, chains)))

        def also(session: Session) -> None:
            self.queue.say_in(session, review.number, operator, "release")
            self.queue.release_in(session, review.number)
            self.differing.note_in(session, policy, release)

        terms = ReleaseTerms(
            policy_id=policy.id,
            maximum_releases=policy.runs.releases,
            on_behalf_of=review.requester,
            purpose=review.purpose,
            check=lambda session: (
                self._check(session, review, operator, known)
                or self.differing.settle_in(session, policy, release)
            ),
            also=also,
        )
        try:
            recorded = self.releases.record(release, terms, make_reply)
        finally:
            link.unlink(missing_ok=True)
        if isinstance(recorded, Refused):
            return recorded
        if recorded.repeated:
            # Two last words at once: the other one was first.
            self.queue.still_waiting(review.number)
            raise StateError("its message was answered before, which cannot be", hint="Withhold it.")
        return None

    def _check(self, session: Session, review: Review, operator: str, known: _Known) -> Refused | None:
        """The last look, inside the transaction that makes the release (invariant I7)."""
        if problem := self.queue.problem_in(session, review.number, operator):
            raise problem
        if self.queue.missing_in(session, review.number, self.settings.review.people) > 1:
            raise UsageError("another person has to release it too", hint="Try again.")
        if reason := self._why_not(self.runs.get_in(session, review.order_digest), known):
            return Refused((reason,))
        return None

    # -- the station itself ----------------------------------------------------------------------------------

    def look(self) -> int:
        """End what waited too long or may not leave any more; returns how many.

        Raises:
            StorageError: it cannot be recorded; the next look tries again.
        """
        ended = 0
        for review in self.queue.list((ReviewState.WAITING,)):
            if self.queue.is_over(review):
                self._end(review, RefusalCode.REVIEW_TIMEOUT, "nobody released it in time")
            elif reason := self._no_longer(review):
                self._end(review, reason.code, reason.detail)
            else:
                continue
            ended += 1
        self.queue.files.sweep_when_due()
        return ended

    def _no_longer(self, review: Review) -> Reason | None:
        """Return why a parked release can never leave, or None where it may, or may later."""
        run = self._run(review)
        if run.state in TERMINAL:
            return _over(run)
        try:
            known = self._know(review)
        except PhtError as error:
            # Nobody can say: it waits on, and is asked about again when somebody releases it.
            log.warning("review.not_looked_at", extra={"reason": type(error).__name__})
            return None
        reason = known.reasons[0] if isinstance(known, Refused) else self._why_not(run, known)
        return reason if reason is not None and reason.code in _FOR_GOOD else None

    def _why_not(self, run: Run, known: _Known) -> Reason | None:
        """Return why a parked release may not leave now: the run, the board, or a patient."""
        if run.state in TERMINAL:
            return _over(run)
        if run.decision is Decision.HELD:
            return Reason(RefusalCode.HOSPITAL_HELD)
        if reason := self.gatekeeper.no_longer_in_force(known.verified):
            return reason
        usable = self.gatekeeper.still_usable(run, known.verified, known.manifest)
        if isinstance(usable, Refused):
            return usable.reasons[0]
        if known.used is not None and not usable.covers(known.used):
            return Reason(RefusalCode.CONSENT_WITHDRAWN)
        return None

    def _know(self, review: Review) -> _Known | Refused:
        """Return what a parked release rests on: its order verified, its train's manifest, whose data it was made from."""
        if (known := self._known.get(review.number)) is not None:
            return known
        verified = self.gatekeeper.verify(self._run(review).envelope, fresh=False)
        if isinstance(verified, Refused):
            return verified
        manifest = self.gatekeeper.manifest(verified.value)
        if isinstance(manifest, Refused):
            return manifest
        document = self.queue.document(review.number)
        used = None if document.used is None else _standing(document.used)
        known = self._known[review.number] = _Known(verified.value, manifest.value, used)
        return known

    def _run(self, review: Review) -> Run:
        run = self.runs.get(review.order_digest)
        if run is None:
            raise NotFoundError("its order is not on record")
        return run

    def _end(self, review: Review, code: RefusalCode, detail: str) -> Review:
        ended = self.queue.end(review.number, code, detail)
        self._forget(review.number)
        return ended

    def _forget(self, number: int) -> None:
        self._known.pop(number, None)


def _over(run: Run) -> Reason:
    if run.state is RunState.FINISHED:
        return Reason(RefusalCode.ORDER_SPENT, "its order is finished")
    return Reason(RefusalCode.RUN_STOPPED, f"its run is {run.state}")


def _standing(used: UsedData) -> Standing:
    return Standing(frozenset(used.patients), frozenset(used.files))


def _stamp(document: ParkedRelease, run: Run, chains: ChainDigests) -> ReplyStamp:
    return ReplyStamp(document.attempt, run.correlation_id, document.compute_s, chains.ledger, chains.audit)
