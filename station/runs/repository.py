"""The record of every order a station has seen; each change and its audit event are one transaction (invariant I6).

Does not decide: admission says what may happen, `station.runs.states` what can. Each method that ends in ``_in`` works
inside the caller's write transaction.
"""

import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from policies.errors import NotFoundError, StateError, UsageError
from policies.refusals import RefusalCode
from station.audit.events import AuditEvent, AuditRecord, Outcome
from station.audit.log import AuditLog, system_clock
from station.egress.records.tables import CounterRow
from station.runs.states import HOLDS_RESOURCES, TERMINAL, Decision, RunEvent, RunState, next_state
from station.runs.tables import OrderRow
from station.storage.database import Database

STATION_ACTOR: Final = "station:compute"
LOST_RUNS_COUNTER: Final = "lost-runs"
"""Runs of a policy that were stated before a restoration and of which the restored records hold no order."""
_OPERATOR: Final = re.compile(r"[A-Za-z0-9_.@-]{1,100}")

_AUDITED: Final[dict[RunEvent, tuple[AuditEvent, Outcome]]] = {
    RunEvent.ADMIT: (AuditEvent.ORDER_ADMITTED, "success"),
    RunEvent.REFUSE: (AuditEvent.ORDER_REFUSED, "refused"),
    RunEvent.APPROVE: (AuditEvent.OPERATOR_APPROVED, "success"),
    RunEvent.HOLD: (AuditEvent.OPERATOR_HELD, "success"),
    RunEvent.FAIL: (AuditEvent.RUN_CHANGED, "failed"),
}
_ASKED_AGAIN: Final = frozenset({RunEvent.REASSESS, RunEvent.REFUSE})
_DECISIONS: Final = {
    Decision.APPROVED: RunEvent.APPROVE,
    Decision.HELD: RunEvent.HOLD,
    Decision.STOPPED: RunEvent.STOP,
}


@dataclass(frozen=True, slots=True)
class NewOrder:
    """A run order as it is first recorded; its signature has been verified.

    Attributes:
        envelope: the DSSE envelope's bytes, as they came.
        requester: on whose behalf, as the audit names actors.
        purpose: the policy's purpose code.
    """

    order_digest: str
    order_id: str
    envelope: bytes
    policy_id: str
    policy_version: int
    requester: str | None = None
    purpose: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """An order and where it stands.

    Attributes:
        decision: what the operator said, if anything.
        code: of the last refusal or failure.
        correlation_id: what the outside is told, to ask about this run.
        failures: messages that the train failed.
        started: a container ran under it; it counts as a run of its policy for ever.
        requester, purpose: as the audit states them with everything that is done under it.
    """

    order_digest: str
    order_id: str
    envelope: bytes
    policy_id: str
    policy_version: int
    state: RunState
    decision: Decision
    decided_by: str | None
    code: str | None
    correlation_id: str
    failures: int
    started: bool
    first_seen: datetime
    changed: datetime
    finished: datetime | None
    requester: str | None = None
    purpose: str | None = None

    @property
    def spent(self) -> bool:
        """Whether the order can do nothing more here."""
        return self.state in TERMINAL


class RunRepository:
    """Reads and changes the orders of one station.

    Args:
        database: the station's compute database.
        audit: where every change is recorded.
        clock: returns the moment it is.
    """

    def __init__(
        self, database: Database, audit: AuditLog, clock: Callable[[], datetime] = system_clock
    ) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    def see(self, order: NewOrder) -> Run:
        """Record an order, or return it as it stands when it was seen before."""
        with self._database.write() as session:
            row = session.get(OrderRow, order.order_digest)
            if row is None:
                row = self._insert(session, order)
            return _run(row)

    def get(self, order_digest: str) -> Run | None:
        """Return an order, or None when it was never seen."""
        with self._database.read() as session:
            row = session.get(OrderRow, order_digest)
            return None if row is None else _run(row)

    def get_in(self, session: Session, order_digest: str) -> Run:
        """Return an order as the caller's transaction sees it.

        Raises:
            NotFoundError: it was never seen.
        """
        return _run(_row(session, order_digest))

    def list(self, states: Iterable[RunState] = tuple(RunState)) -> list[Run]:
        """Return the orders in these states, oldest first."""
        query = select(OrderRow).where(OrderRow.state.in_([state.value for state in states]))
        with self._database.read() as session:
            return [
                _run(row)
                for row in session.scalars(query.order_by(OrderRow.first_seen, OrderRow.order_digest))
            ]

    def transition(
        self,
        order_digest: str,
        event: RunEvent,
        *,
        actor: str = STATION_ACTOR,
        code: RefusalCode | None = None,
        detail: str = "",
    ) -> Run:
        """Let an event happen, durably.

        Args:
            order_digest: which order.
            event: what happened.
            actor: who did it, as the audit names actors.
            code: why, for refusals and failures; kept as the order's last code.
            detail: for the audit: a sentence of ours, never a train's text.

        Raises:
            NotFoundError: the order was never seen.
            StateError: the event cannot happen in the order's state.
        """
        with self._database.write() as session:
            return self.transition_in(session, order_digest, event, actor=actor, code=code, detail=detail)

    def transition_in(
        self,
        session: Session,
        order_digest: str,
        event: RunEvent,
        *,
        actor: str = STATION_ACTOR,
        code: RefusalCode | None = None,
        detail: str = "",
    ) -> Run:
        """Let an event happen inside the caller's write transaction, see `transition`."""
        row = _row(session, order_digest)
        before = RunState(row.state)
        after = next_state(before, event)
        if after is None:
            raise StateError(
                f"the run is {before}: '{event}' cannot happen to it",
                hint="List the runs and their states with `pht-station runs`.",
            )
        row.state = after
        row.changed = self._clock()
        row.started = row.started or event is RunEvent.PREPARED
        row.code = code.value if code is not None else row.code
        if after in TERMINAL and row.finished is None:
            row.finished = row.changed
        session.flush()
        self._record(
            session, row, event, actor, f"{before} -> {after}" + (f": {detail}" if detail else ""), code
        )
        return _run(row)

    def decide(self, order_digest: str, decision: Decision, operator: str) -> Run:
        """Record what the operator says and let it happen.

        Args:
            order_digest: which order.
            decision: approved, held or stopped.
            operator: the operator's name as the audit writes it, without the ``operator:`` before it.

        Raises:
            UsageError: the name is not one that the audit can write.
            NotFoundError: the order was never seen.
            StateError: it cannot happen in the order's state.
        """
        if decision is Decision.NONE:
            raise UsageError("a decision is approve, hold or stop")
        if not _OPERATOR.fullmatch(operator):
            raise UsageError("an operator's name has letters, digits and . _ @ - only, at most 100")
        code = {Decision.HELD: RefusalCode.HOSPITAL_HELD, Decision.STOPPED: RefusalCode.RUN_STOPPED}.get(
            decision
        )
        with self._database.write() as session:
            row = _row(session, order_digest)
            row.decision, row.decided_by = decision.value, operator
            return self.transition_in(
                session, order_digest, _DECISIONS[decision], actor=f"operator:{operator}", code=code
            )

    def record_failure(self, order_digest: str, code: RefusalCode | str, *, detail: str = "") -> int:
        """Count one failed message of a train, durably, and return how many there are now.

        Args:
            order_digest: which order.
            code: a refusal code, or an error code that the manifest declares.
            detail: for the audit.
        """
        with self._database.write() as session:
            row = _row(session, order_digest)
            row.failures += 1
            row.code = str(code)
            row.changed = self._clock()
            session.flush()
            self._audit.append_in(
                session,
                AuditRecord(
                    event=AuditEvent.TRAIN_FAILED,
                    actor=STATION_ACTOR,
                    outcome="failed",
                    on_behalf_of=row.requester,
                    purpose=row.purpose,
                    object=order_digest,
                    codes=(str(code),),
                    numbers={"failures": row.failures},
                    detail=detail,
                ),
            )
            return row.failures

    def runs_used(self, policy_id: str, *, besides: str | None = None) -> int:
        """Count the orders that are or were a run of a policy, over all its versions.

        Args:
            policy_id: which policy.
            besides: an order digest to leave out, so that an order does not stand in its own way.
        """
        with self._database.read() as session:
            return self.runs_used_in(session, policy_id, besides=besides)

    def runs_used_in(self, session: Session, policy_id: str, *, besides: str | None = None) -> int:
        """Count as `runs_used` does, inside the caller's transaction."""
        holding = [state.value for state in HOLDS_RESOURCES]
        query = (
            select(func.count())
            .select_from(OrderRow)
            .where(OrderRow.policy_id == policy_id, or_(OrderRow.started, OrderRow.state.in_(holding)))
        )
        if besides is not None:
            query = query.where(OrderRow.order_digest != besides)
        return (session.scalar(query) or 0) + _lost_runs(session, policy_id)

    def runs_started_in(self, session: Session, policy_id: str) -> int:
        """Count the orders of a policy that a container ran under: what `runs_used_in` counts and never takes back."""
        query = (
            select(func.count())
            .select_from(OrderRow)
            .where(OrderRow.policy_id == policy_id, OrderRow.started)
        )
        return (session.scalar(query) or 0) + _lost_runs(session, policy_id)

    def _insert(self, session: Session, order: NewOrder) -> OrderRow:
        now = self._clock()
        row = OrderRow(
            order_digest=order.order_digest,
            order_id=order.order_id,
            envelope=order.envelope,
            policy_id=order.policy_id,
            policy_version=order.policy_version,
            requester=order.requester,
            purpose=order.purpose,
            state=RunState.SEEN.value,
            decision=Decision.NONE.value,
            decided_by=None,
            code=None,
            correlation_id=secrets.token_hex(8),
            failures=0,
            started=False,
            first_seen=now,
            changed=now,
            finished=None,
        )
        session.add(row)
        session.flush()
        self._audit.append_in(
            session,
            AuditRecord(
                event=AuditEvent.ORDER_SEEN,
                actor="orchestrator:superlink",
                on_behalf_of=order.requester,
                purpose=order.purpose,
                object=order.order_digest,
                numbers={"policy_version": order.policy_version},
                detail=f"policy {order.policy_id}",
            ),
        )
        return row

    def _record(
        self,
        session: Session,
        row: OrderRow,
        event: RunEvent,
        actor: str,
        detail: str,
        code: RefusalCode | None,
    ) -> None:
        name, outcome = _AUDITED.get(event, (AuditEvent.RUN_CHANGED, "success"))
        if event is RunEvent.STOP and actor.startswith("operator:"):
            name = AuditEvent.OPERATOR_STOPPED
        record = AuditRecord(
            event=name,
            actor=actor,
            outcome=outcome,
            on_behalf_of=row.requester,
            purpose=row.purpose,
            object=row.order_digest,
            codes=() if code is None else (code.value,),
            detail=detail,
        )
        if event in _ASKED_AGAIN:
            # A refused order can be brought again for ever.
            self._audit.thinned.append_in(session, record, f"{row.order_digest} {event}")
        else:
            self._audit.append_in(session, record)


def _lost_runs(session: Session, policy_id: str) -> int:
    lost = session.get(CounterRow, (LOST_RUNS_COUNTER, policy_id))
    return 0 if lost is None else lost.value


def count_as_started(session: Session, order_digest: str) -> None:
    """Count an order as a run of its policy, for ever, inside the caller's write transaction.

    Raises:
        NotFoundError: the order was never seen.
    """
    _row(session, order_digest).started = True


def _row(session: Session, order_digest: str) -> OrderRow:
    row = session.get(OrderRow, order_digest)
    if row is None:
        raise NotFoundError("no such run at this station", hint="List the runs with `pht-station runs`.")
    return row


def _run(row: OrderRow) -> Run:
    return Run(
        order_digest=row.order_digest,
        order_id=row.order_id,
        envelope=row.envelope,
        policy_id=row.policy_id,
        policy_version=row.policy_version,
        state=RunState(row.state),
        decision=Decision(row.decision),
        decided_by=row.decided_by,
        code=row.code,
        correlation_id=row.correlation_id,
        failures=row.failures,
        started=row.started,
        first_seen=row.first_seen,
        changed=row.changed,
        finished=row.finished,
        requester=row.requester,
        purpose=row.purpose,
    )
