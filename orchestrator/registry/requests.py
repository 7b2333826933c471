"""Requests of researchers for a train to run: taken in, reviewed, declined, withdrawn, and followed to their release.

Decides no approval: that is a policy in force in the verified mirror which names the request's manifest and key. Invariants:
a request is kept once the key that it names has signed it, and for the very account that sends it;
the state of a request and its history change together, and with the audit, in one transaction; the history is never changed;
who is neither the owner, nor board, operator or auditor, learns not even that a request is there.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session, defer

from orchestrator.federation.orders import FolderQueue
from orchestrator.registry.access import Principal, Role
from orchestrator.registry.approvals import Approvals
from orchestrator.registry.audit import Action, Audit, AuditEvent
from orchestrator.registry.request_looks import Look, RunStates, look_at
from orchestrator.registry.request_proof import proven_request
from orchestrator.registry.request_states import FINAL, RequestEvent, next_state
from orchestrator.registry.request_views import SEE_ALL, RequestStep, RequestView, view_of, visible
from orchestrator.settings import Home
from orchestrator.storage import BundleRow, Database, RequestRow, RequestStepRow
from policies.documents import digest_of
from policies.errors import NotFoundError, PhtError, RefusedError, StateError
from policies.train_request import Declined, Remark, RequestState, TrainRequest, VerifiedRequest

MAX_OPEN: Final = 100
"""Requests of one researcher that are not over."""
MAX_PAGE: Final = 500
LOOK_AGAIN_S: Final = 1.0
_NOT_OPEN: Final = FINAL | {RequestState.DECLINED}
_LIGHT: Final = defer(RequestRow.envelope)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Change:
    event: RequestEvent
    who: str
    code: str = ""
    text: str = ""


class Requests:
    """The requests of all researchers.

    Args:
        home: where the mirror and the run folders are.
        database: the orchestrator's.
        audit: where changes are recorded as well.
        clock: returns the moment it is.
    """

    def __init__(
        self,
        home: Home,
        database: Database,
        audit: Audit,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database, self._audit, self._clock = database, audit, clock
        self._queue = FolderQueue(home.runs)
        self._approvals = Approvals(home, clock)
        self._lock = threading.Lock()
        self._look_again = 0.0
        self._damaged: set[str] = set()
        self._contested: frozenset[str] = frozenset()

    def submit(self, principal: Principal, envelope: bytes) -> RequestView:
        """Take a signed request in; the same document again, while the first is not over, is that request.

        Who sends the signed bytes of somebody else gets nothing for it, whoever is first: the signature names the account.

        Raises:
            DocumentError: it is no request.
            TrustError: the key that it names did not sign it.
            RefusedError: it is signed for another account (REQUEST_SENDER), its train is not here (TRAIN_UNKNOWN), or too many
                are open (REQUESTS_TOO_MANY).
        """
        proven = proven_request(self._audit, principal, envelope)
        digest = digest_of(proven.text)
        with self._database.transaction() as session:
            open_ones = session.scalars(
                select(RequestRow)
                .where(RequestRow.owner == principal.id, RequestRow.state.not_in(_NOT_OPEN))
                .options(_LIGHT)
            ).all()
            again = next((row for row in open_ones if row.document_digest == digest), None)
            if again is not None and again.signed:
                return view_of(again)
            if again is not None:
                # Of an earlier version, which asked for no signature.
                again.envelope, again.signed = envelope, True
                event = AuditEvent(
                    action=Action.REQUEST_CHANGED, who=principal.id, about=f"request {again.id}: signed"
                )
                self._audit.append_in(session, event)
                row = again
            else:
                row = self._new(session, principal, proven, envelope, len(open_ones))
        self._look_anew()
        return self.get(principal, row.id)

    def _new(
        self, session: Session, principal: Principal, proven: VerifiedRequest, envelope: bytes, count: int
    ) -> RequestRow:
        if count >= MAX_OPEN:
            raise RefusedError(
                "REQUESTS_TOO_MANY",
                f"{MAX_OPEN} of your requests are open",
                hint="Withdraw those you need no longer.",
            )
        _refuse_unknown_train(session, proven.document)
        return self._add(session, principal, proven, envelope)

    def all(
        self, principal: Principal, state: RequestState | None = None, offset: int = 0, limit: int = MAX_PAGE
    ) -> list[RequestView]:
        """The requests that a party may see, the newest first."""
        self.follow()
        query = select(RequestRow).order_by(RequestRow.submitted.desc(), RequestRow.id).options(_LIGHT)
        if principal.role is Role.RESEARCHER:
            query = query.where(RequestRow.owner == principal.id)
        if state is not None:
            query = query.where(RequestRow.state == state)
        with self._database.reading() as session:
            rows = session.scalars(query.offset(offset).limit(min(limit, MAX_PAGE))).all()
        return [self._seen(row, principal) for row in rows]

    def get(self, principal: Principal, request: str) -> RequestView:
        """One request.

        Raises:
            NotFoundError: there is none that this party may see.
        """
        self.follow()
        with self._database.reading() as session:
            return self._seen(visible(session, principal, request), principal)

    def history(self, principal: Principal, request: str) -> list[RequestStep]:
        """What became of a request, the oldest first.

        Raises:
            NotFoundError: there is none that this party may see.
        """
        self.follow()
        with self._database.reading() as session:
            visible(session, principal, request)
            rows = session.scalars(
                select(RequestStepRow)
                .where(RequestStepRow.request == request)
                .order_by(RequestStepRow.number)
            ).all()
        return [
            RequestStep(row.number, row.moment, row.who, row.before, row.after, row.code, row.text)
            for row in rows
        ]

    def envelope(self, principal: Principal, request: str) -> bytes:
        """A request as its key signed it, for whoever may see it to verify.

        Raises:
            NotFoundError: there is none that this party may see, or it is of an earlier version and was never signed.
        """
        with self._database.reading() as session:
            envelope = visible(session, principal, request).envelope
        if envelope is None:
            raise NotFoundError("the request was never signed")
        return envelope

    def take_up(self, principal: Principal, request: str, remark: Remark) -> RequestView:
        """Take a request into review.

        Raises:
            NotFoundError, RefusedError: there is none, or it is not waiting (REQUEST_STATE).
        """
        return self._change(principal, request, _Change(RequestEvent.TAKE_UP, principal.id, "", remark.text))

    def decline(self, principal: Principal, request: str, why: Declined) -> RequestView:
        """Decline a request.

        Raises:
            NotFoundError, RefusedError: there is none, or it is beyond that (REQUEST_STATE).
        """
        change = _Change(RequestEvent.DECLINE, principal.id, why.reason, why.text)
        return self._change(principal, request, change)

    def withdraw(self, principal: Principal, request: str, remark: Remark) -> RequestView:
        """Withdraw one's own request.

        Raises:
            NotFoundError, RefusedError: there is none, or it is beyond that (REQUEST_STATE).
        """
        return self._change(principal, request, _Change(RequestEvent.WITHDRAW, principal.id, "", remark.text))

    def follow(self, *, at_once: bool = False) -> int:
        """Record what follows from the mirror, the orders and the runs as they are now; return how many steps.

        Looks at most once in `LOOK_AGAIN_S`, however many ask; who comes in between goes by what was found.

        Args:
            at_once: something has happened: look in any case.
        """
        with self._lock:
            if not at_once and time.monotonic() < self._look_again:
                return 0
            count = self._follow()
            self._look_again = time.monotonic() + LOOK_AGAIN_S
            return count

    def _follow(self) -> int:
        with self._database.reading() as session:
            query = select(RequestRow).where(RequestRow.state.not_in(FINAL))
            rows = session.scalars(query.options(defer(RequestRow.document), _LIGHT)).all()
            if not rows:
                self._contested = frozenset()
                return 0
            look = self._look(session, rows)
            self._contested = frozenset(row.id for row in rows if look.contested(row))
            plans = {row.id: (row.state, look.plan(row)) for row in rows}
            moving = [row.id for row in rows if plans[row.id][1].changes_anything(row)]
        if not moving:
            return 0
        count = 0
        with self._database.transaction() as session:
            for request in moving:
                row = session.get(RequestRow, request)
                before, plan = plans[request]
                if row is None or row.state != before:
                    # Another process, or a hand, was faster; the next look goes by that.
                    continue
                row.policy_id, row.policy_version = plan.policy or (None, None)
                for step in plan.steps:
                    text = "" if plan.policy is None else f"{plan.policy[0]} version {plan.policy[1]}"
                    self._apply(session, row, _Change(step.event, step.who, step.code, text))
                count += len(plan.steps)
        return count

    def _look(self, session: Session, rows: Sequence[RequestRow]) -> Look:
        return look_at(session, rows, self._approvals.now(), RunStates(self._queue, self._damaged))

    def follow_quietly(self) -> None:
        """`follow` beside something else; what fails is logged, and tried again at the next look."""
        try:
            self.follow(at_once=True)
        except PhtError as error:
            _LOG.warning("requests_not_followed", extra={"code": type(error).__name__})

    def _change(self, principal: Principal, request: str, change: _Change) -> RequestView:
        self.follow()
        with self._database.transaction() as session:
            row = visible(session, principal, request)
            if next_state(RequestState(row.state), change.event) is None or (
                change.event is RequestEvent.DECLINE
                and row.state == RequestState.APPROVED
                and not self._look(session, [row]).contested(row)
            ):
                raise RefusedError(
                    "REQUEST_STATE",
                    f"a request that is {row.state} takes no {change.event}",
                    hint="Look at it again: its state has changed, or was another all along.",
                )
            self._apply(session, row, change)
            if change.event is RequestEvent.DECLINE:
                row.policy_id = row.policy_version = None
            view = self._seen(row, principal)
        self._look_anew()
        return view

    def _look_anew(self) -> None:
        # After a look that was under way: it knew nothing of the change. Never within a transaction: that look may want one.
        with self._lock:
            self._look_again = 0.0

    def _seen(self, row: RequestRow, principal: Principal) -> RequestView:
        return view_of(row, contested=principal.role in SEE_ALL and row.id in self._contested)

    def _apply(self, session: Session, row: RequestRow, change: _Change) -> None:
        after = next_state(RequestState(row.state), change.event)
        if after is None:
            raise StateError(f"a request that is {row.state} takes no {change.event}")
        self._step(session, row, row.state, after, change)
        row.state = after.value

    def _add(
        self, session: Session, principal: Principal, proven: VerifiedRequest, envelope: bytes
    ) -> RequestRow:
        document, data, now = proven.document, proven.text, self._clock()
        row = RequestRow(
            id=secrets.token_hex(16),
            owner=principal.id,
            document=data,
            envelope=envelope,
            signed=True,
            document_digest=digest_of(data),
            train=document.train.name,
            version=document.train.version,
            manifest_digest=document.train.manifest_digest,
            requester_key=document.requester.key,
            state=RequestState.SUBMITTED.value,
            policy_id=None,
            policy_version=None,
            submitted=now,
            changed=now,
        )
        session.add(row)
        session.flush()
        change = _Change(RequestEvent.SUBMIT, principal.id)
        self._step(session, row, "", RequestState.SUBMITTED, change)
        return row

    def _step(
        self, session: Session, row: RequestRow, before: str, after: RequestState, change: _Change
    ) -> None:
        count = select(func.count()).where(RequestStepRow.request == row.id)
        row.changed = self._clock()
        session.add(
            RequestStepRow(
                request=row.id,
                number=(session.scalar(count) or 0) + 1,
                moment=row.changed,
                who=change.who,
                before=before,
                after=after.value,
                code=change.code,
                text=change.text,
            )
        )
        action = Action.REQUEST_CHANGED if before else Action.REQUEST_SUBMITTED
        about = f"request {row.id}: {after}" if before else f"request {row.id}"
        event = AuditEvent(action=action, who=change.who, about=about, code=change.code)
        self._audit.append_in(session, event)


def _refuse_unknown_train(session: Session, document: TrainRequest) -> None:
    train = document.train
    known = select(BundleRow.manifest_digest).where(
        BundleRow.manifest_digest == train.manifest_digest,
        BundleRow.name == train.name,
        BundleRow.version == train.version,
    )
    if session.scalars(known).first() is None:
        raise RefusedError(
            "TRAIN_UNKNOWN",
            f"there is no {train.name} {train.version} with this manifest here",
            hint="Send its bundle first, with `pht-train submit`: the board looks at that.",
        )
