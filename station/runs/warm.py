"""The runs that are warm: what is prepared for each order, one lock per order, and how it all ends.

A withdrawal, a revocation, the operator's word and a message never interleave on one order, and nothing waits on another.
A container can be killed from outside its order's lock, which a message under way holds: whoever does so says why first (so
that its end is not taken for the train's failure), and a run that was ended so takes no further message as it stands.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from weakref import WeakValueDictionary

from policies.errors import NotFoundError, PhtError, StateError
from policies.profiles.anonymity import Anonymity
from policies.refusals import Permitted, Reason, RefusalCode, Refused
from station.admission.gatekeeper import Admitted, Gatekeeper, VerifiedOrder
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.catalogue import Standing
from station.cohorts import CaseSource, CohortDefinition
from station.runs.places import run_id
from station.runs.predicting import Predicting
from station.runs.preparation import Preparation
from station.runs.prepared import Prepared
from station.runs.repository import STATION_ACTOR, Run, RunRepository
from station.runs.states import HOLDS_RESOURCES, TERMINAL, Decision, RunEvent, RunState
from station.runs.train_logs import SCORING

log = logging.getLogger(__name__)

_PATIENCE_S = 0.5
_REVOCATIONS = frozenset(
    {
        RefusalCode.POLICY_REVOKED,
        RefusalCode.POLICY_MISSING,
        RefusalCode.POLICY_EXPIRED,
        RefusalCode.REQUESTER_REVOKED,
        RefusalCode.STATION_REVOKED,
    }
)
"""Refusals after which a run that was under way is over, not waiting."""


class WarmRuns:
    """Every prepared order of this station."""

    def __init__(
        self,
        gatekeeper: Gatekeeper,
        runs: RunRepository,
        preparation: Preparation,
        audit: AuditLog,
        predicting: Predicting | None = None,
    ) -> None:
        self._gatekeeper = gatekeeper
        self._runs = runs
        self._preparation = preparation
        self._containers = preparation.containers
        self._audit = audit
        self._prepared: dict[str, Prepared] = {}
        self._predicting = predicting
        # Of orders that are finished: what their trains are still asked for the hospital alone.
        self._leaving: dict[str, Prepared] = {}
        # Weak, so that what strangers ask about does not pile up: whoever holds or waits for a lock keeps it.
        self._locks: WeakValueDictionary[str, threading.RLock] = WeakValueDictionary()
        self._guard = threading.Lock()

    def lock(self, order_digest: str) -> threading.RLock:
        """Return the order's lock."""
        with self._guard:
            lock = self._locks.get(order_digest)
            if lock is None:
                lock = self._locks[order_digest] = threading.RLock()
            return lock

    def orders(self) -> frozenset[str]:
        """The orders that hold a container or a cohort now."""
        return frozenset(self._prepared) | frozenset(self._leaving)

    def cohorts(self) -> frozenset[Path]:
        """The data folders of the cohorts that are held now."""
        return frozenset(prepared.cohort.path for _, prepared in self._held())

    def _held(self) -> list[tuple[str, Prepared]]:
        return [*self._prepared.items(), *self._leaving.items()]

    def has(self, order_digest: str) -> bool:
        """Whether the order is prepared."""
        return order_digest in self._prepared

    def make_ready(self, run: Run, admitted: Admitted) -> Permitted[Prepared] | Refused:
        """Prepare under the order's lock, unless it was stopped or held meanwhile."""
        current = self._runs.get(run.order_digest)
        if current is None or current.state is not RunState.PREPARING:
            return Refused.because(RefusalCode.RUN_STOPPED)
        if self._containers.is_out_of_time(current, admitted):
            return self._end_of_time(current)

        def begun(prepared: Prepared) -> None:
            self._prepared[run.order_digest] = prepared

        result: Permitted[Prepared] | Refused | None = None
        try:
            result = self._preparation.prepare(current, admitted, begun)
        finally:
            if not isinstance(result, Permitted):
                self._prepared.pop(run.order_digest, None)
        if isinstance(result, Refused):
            self.refuse(run.order_digest, result)
            return result
        if why := _why_ended(result.value):
            ended = self._ended(run.order_digest, why)
            self._stop_if_revoked(run.order_digest, why)
            return ended
        try:
            self._runs.transition(run.order_digest, RunEvent.PREPARED)
        except PhtError as error:
            self.let_go(run.order_digest, None)
            if isinstance(error, StateError):
                # The operator's word came while it was prepared.
                return Refused.because(RefusalCode.RUN_STOPPED)
            raise
        return result

    def warm(self, run: Run, admitted: Admitted) -> Permitted[Prepared] | Refused:
        """Return the prepared run, made again where a crash or a withdrawal took it."""
        prepared = self._prepared.get(run.order_digest)
        if prepared is None:
            if run.state not in HOLDS_RESOURCES:
                return Refused.because(RefusalCode.DATA_NOT_READY, "the order was not prepared")
            if run.state is not RunState.PREPARING:
                self._runs.transition(run.order_digest, RunEvent.RECOVER)
            return self.make_ready(run, admitted)
        if prepared.ended_by is not None and prepared.ended_by is not RefusalCode.CONSENT_WITHDRAWN:
            return self._ended(run.order_digest, prepared.ended_by)
        now_consenting = self._gatekeeper.consenting(admitted)
        if isinstance(now_consenting, Refused):
            self.let_go(run.order_digest, RunEvent.RECOVER)
            return now_consenting
        if prepared.ended_by is not None or not now_consenting.covers(prepared.used):
            self.let_go(run.order_digest, RunEvent.RECOVER)
            return self.make_ready(run, admitted)
        if self._containers.is_out_of_time(run, admitted):
            return self._end_of_time(run)
        if prepared.session is None or not prepared.session.alive:
            self._containers.end(run, prepared)
            self._containers.start(run, prepared)
            if why := _why_ended(prepared):
                return self._ended(run.order_digest, why)
        return Permitted(prepared)

    def _end_of_time(self, run: Run) -> Refused:
        self.let_go(run.order_digest, None)
        self._runs.transition(run.order_digest, RunEvent.FAIL, code=RefusalCode.RUN_TIME_SPENT)
        return Refused.because(RefusalCode.RUN_TIME_SPENT)

    def end_if_dead(self, run: Run) -> None:
        """Kill a container that takes no further message now, not when the next one comes."""
        prepared = self._prepared.get(run.order_digest)
        if prepared is not None and prepared.session is not None and not prepared.session.alive:
            self._containers.end(run, prepared)

    def _ended(self, order_digest: str, why: RefusalCode) -> Refused:
        self.let_go(order_digest, RunEvent.RECOVER)
        return Refused.because(why)

    def withdraw(self, still_consenting: Callable[[Admitted], Standing | Refused]) -> list[str]:
        """Stop every run whose cohort holds what may be used no longer; returns the orders stopped.

        That is a patient who withdrew, one who was merged into another, an instance that was removed. The container is
        killed at once, also in the middle of a message; the next message freezes the cohort again.
        """
        stopped = []
        for order_digest, prepared in self._held():
            if prepared.ended_by is not None:
                continue
            now = still_consenting(prepared.admitted)
            if not isinstance(now, Refused) and now.covers(prepared.used):
                continue
            try:
                self._note_withdrawal(order_digest, prepared.used, now)
            finally:
                self.end(prepared, RefusalCode.CONSENT_WITHDRAWN)
            stopped.append(order_digest)
        self._clear_ended()
        return stopped

    def _note_withdrawal(self, order_digest: str, used: Standing, now: Standing | Refused) -> None:
        event, numbers = AuditEvent.CONSENT_WITHDRAWN, {"patients": 0}
        if not isinstance(now, Refused):
            lost = used.patients - now.patients
            if lost <= self._gatekeeper.without_data(lost):
                event = AuditEvent.DATA_WITHDRAWN
            numbers = {"patients": len(now.lost(used)), "files": len(used.files - now.files)}
        self._audit.append(
            AuditRecord(event=event, actor=STATION_ACTOR, object=order_digest, numbers=numbers)
        )

    def revoke(self, gone: Callable[[VerifiedOrder], Reason | None]) -> None:
        """Stop every prepared run whose policy is no longer in force, also in the middle of a message."""
        for _, prepared in self._held():
            if prepared.ended_by is None and (reason := gone(prepared.admitted.verified)) is not None:
                self.end(prepared, reason.code)
        self._clear_ended()

    def _clear_ended(self) -> None:
        """Wipe what was ended; where a message still answers, at the next look: one order delays no other."""
        for order_digest, prepared in list(self._prepared.items()):
            lock = self.lock(order_digest)
            if prepared.ended_by is None or not lock.acquire(timeout=_PATIENCE_S):
                continue
            try:
                if self._prepared.get(order_digest) is prepared:
                    self.let_go(order_digest, RunEvent.RECOVER)
                    self._stop_if_revoked(order_digest, prepared.ended_by)
            finally:
                lock.release()

    def end_idle(self, idle: timedelta) -> list[str]:
        """End the containers that hold a GPU and were asked nothing for so long; the next message starts them again.

        Returns:
            Their orders.
        """
        ended = []
        for order_digest, prepared in list(self._prepared.items()):
            lock = self.lock(order_digest)
            # A message under way holds it: that train is not idle.
            if not self._is_idle(prepared, idle) or not lock.acquire(blocking=False):
                continue
            try:
                run = self._runs.get(order_digest)
                same = self._prepared.get(order_digest) is prepared
                if run is not None and same and self._is_idle(prepared, idle):
                    self._containers.end_idle(run, prepared)
                    ended.append(order_digest)
            finally:
                lock.release()
        return ended

    def _is_idle(self, prepared: Prepared, idle: timedelta) -> bool:
        session, last = prepared.session, prepared.last_message
        if session is None or last is None or not session.alive or not prepared.has_gpu:
            return False
        return prepared.ended_by is None and self._gatekeeper.now() - last >= idle

    def stop(self, order_digest: str, decide: Callable[[], Run]) -> Run:
        """Let an operator's hold or stop happen: recorded first, then a message under way is ended.

        Args:
            order_digest: which order.
            decide: records the word; from then on nothing of this order can be released.
        """
        run = decide()
        prepared = self._prepared.get(order_digest)
        if prepared is not None:
            # Outside the lock: a message under way holds it until its container is gone.
            held = run.decision is Decision.HELD
            self.end(prepared, RefusalCode.HOSPITAL_HELD if held else RefusalCode.RUN_STOPPED)
        with self.lock(order_digest):
            self.let_go(order_digest, None)
        return run

    def finish(self, run: Run, finish: Callable[[], Run]) -> Run:
        """Let an order's run be over: what it held is wiped, at once or when its train was asked for predictions.

        Args:
            run: of which order; its lock is held.
            finish: puts it on record.
        """
        order_digest = run.order_digest
        prepared = self._prepared.get(order_digest)
        job = None if self._predicting is None or prepared is None else self._predicting.job_of(run, prepared)
        if self._predicting is None or job is None:
            self.let_go(order_digest, None)
            return finish()
        self._leaving[order_digest] = self._prepared.pop(order_digest)
        try:
            finished = finish()
        except BaseException:
            self._leave(order_digest)
            raise
        self._predicting.begin(job, lambda: self._leave(order_digest))
        return finished

    def _leave(self, order_digest: str) -> None:
        prepared, run = self._leaving.get(order_digest), self._runs.get(order_digest)
        try:
            if prepared is not None and run is not None:
                self._preparation.dispose(run, prepared)
        finally:
            self._leaving.pop(order_digest, None)

    def recover(self) -> None:
        """After a start: whatever an earlier life held is gone, and its orders go back to preparation."""
        self._containers.clock.recover()
        for run in self._runs.list(HOLDS_RESOURCES):
            self._runs.transition(run.order_digest, RunEvent.RECOVER, detail="the station started again")

    def close(self) -> None:
        """Stop every container; orders stay as they are for the next life."""
        for order_digest, prepared in list(self._prepared.items()):
            self.end(prepared, RefusalCode.RUN_STOPPED)
            with self.lock(order_digest):
                self.let_go(order_digest, None)
        for _, prepared in list(self._leaving.items()):
            self.end(prepared, RefusalCode.RUN_STOPPED)
        if self._predicting is not None:
            self._predicting.close()

    def anonymity(self, definition: CohortDefinition, cases: tuple[CaseSource, ...]) -> Anonymity:
        """Return the k-anonymity of the clinical table that a train would see."""
        return self._preparation.anonymity(definition, cases)

    def logs(self, order_digest: str) -> str:
        """Return what the train wrote, for the operator alone."""
        prepared, run = self._prepared.get(order_digest), self._runs.get(order_digest)
        name, logs = ("" if run is None else run_id(run)), self._containers.logs
        scoring = logs.read(name + SCORING) if name else ""
        if scoring:
            scoring = f"\n-- the last container that failed to score an update --\n{scoring}"
        if prepared is not None and prepared.session is not None:
            return prepared.session.logs() + scoring
        kept = logs.read(name) + scoring if name else ""
        if not kept:
            raise NotFoundError("this train has printed nothing yet")
        return kept

    def end(self, prepared: Prepared, why: RefusalCode) -> None:
        """Kill a container from outside its order's lock; `why` is what a message under way is answered with."""
        prepared.ended_by = prepared.ended_by or why
        run = self._runs.get(prepared.admitted.verified.digest)
        if run is not None:
            self._containers.end(run, prepared, why)

    def end_if_revoked(self, order_digest: str, refused: Refused) -> None:
        """After a policy that is not (or not verifiably) in force: nothing stays warm, and a withdrawn one ends its run."""
        self.let_go(order_digest, RunEvent.RECOVER)
        self._stop_if_revoked(order_digest, refused.code)

    def _stop_if_revoked(self, order_digest: str, code: RefusalCode) -> None:
        run = self._runs.get(order_digest)
        if run is not None and run.state not in TERMINAL and code in _REVOCATIONS:
            self._runs.transition(
                order_digest, RunEvent.STOP, code=code, detail="the board no longer permits it"
            )

    def refuse(self, order_digest: str, refused: Refused) -> None:
        """Record why an order does not run now, unless it ended or was held meanwhile: that stands."""
        with contextlib.suppress(StateError):
            self._runs.transition(order_digest, RunEvent.REFUSE, code=refused.code, detail=describe(refused))

    def let_go(self, order_digest: str, event: RunEvent | None) -> None:
        """Stop and wipe what is prepared for an order; `event` tells the run's state of it, where it holds anything."""
        prepared = self._prepared.pop(order_digest, None)
        run = self._runs.get(order_digest)
        if prepared is not None and run is not None:
            self._preparation.dispose(run, prepared)
        if event is not None and run is not None and run.state in {RunState.READY, RunState.BUSY}:
            self._runs.transition(order_digest, event)


def describe(refused: Refused) -> str:
    """Return a refusal in words, for the hospital's audit."""
    return "; ".join(f"{reason.code} {reason.detail}".strip() for reason in refused.reasons)


def _why_ended(prepared: Prepared) -> RefusalCode | None:
    # Another thread may have ended it since it was looked at last.
    return prepared.ended_by
