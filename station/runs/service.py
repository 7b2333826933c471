"""What the station does with an instruction: the agent's handler.

    prepare              verify, decide, ask the operator, prepare in the background; answered at once, asked again
    train .. analyse     admit, give to the warm container, guard, release, push, answer
    finish               stop, wipe, spend the order

Delivery is idempotent by (order, round, kind): a repeated instruction gets the recorded release, byte for byte. What is
prepared, and how it ends, is `station.runs.warm`.
"""

import logging
import threading
from typing import Protocol

from policies.documents import digest_of
from policies.errors import (
    NetworkError,
    NotFoundError,
    PhtError,
    RefusedError,
    StorageError,
    TrustError,
    UnavailableError,
)
from policies.order import PAYLOAD_TYPE
from policies.refusals import Permitted, Reason, RefusalCode, Refused
from policies.signing import unsafe_payload
from policies.wire.instructions import Instruction, Kind, StationReply, Status
from station.admission.gatekeeper import Admitted, Gatekeeper, VerifiedOrder
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.runs.outbox import Outbox
from station.runs.preparation import Prepared
from station.runs.repository import STATION_ACTOR, NewOrder, Run, RunRepository
from station.runs.states import HOLDS_RESOURCES, RunEvent, RunState
from station.runs.warm import WarmRuns, describe
from station.sandbox.spec import TrainFailure, TrainStartError

log = logging.getLogger(__name__)

_WAITING = frozenset({RunState.SEEN, RunState.WAITING_OPERATOR, RunState.HELD, RunState.REFUSED})
_SPENT = {
    RunState.FINISHED: RefusalCode.ORDER_SPENT,
    RunState.STOPPED: RefusalCode.RUN_STOPPED,
    RunState.FAILED: RefusalCode.TRAIN_FAILED_TOO_OFTEN,
}
_REVOCATIONS = frozenset({RefusalCode.POLICY_REVOKED, RefusalCode.POLICY_MISSING, RefusalCode.POLICY_EXPIRED})
"""Refusals after which a run that was under way is over, not waiting."""


class Rounds(Protocol):
    """Answers one message of a prepared run."""

    def answer(
        self, instruction: Instruction, arrays: bytes | None, run: Run, prepared: Prepared
    ) -> tuple[StationReply, bytes | None]:
        """Give the message to the train and return the reply that may leave."""

    def recorded(self, instruction: Instruction) -> tuple[StationReply, bytes | None] | None:
        """Return the recorded release of this (order, round, kind), pushed again where that was lost."""

    def failed(
        self, instruction: Instruction, run: Run, failure: TrainFailure, declared: tuple[str, ...]
    ) -> StationReply:
        """Count a failed message and say so."""


class RunService:
    """Implements the agent's `InstructionHandler` on the station's state."""

    def __init__(
        self,
        gatekeeper: Gatekeeper,
        runs: RunRepository,
        warm: WarmRuns,
        rounds: Rounds,
        outbox: Outbox,
        audit: AuditLog,
        runs_at_once: int,
    ) -> None:
        self._gatekeeper = gatekeeper
        self._runs = runs
        self._warm = warm
        self._rounds = rounds
        self._outbox = outbox
        self._audit = audit
        self._runs_at_once = runs_at_once
        self._workers: dict[str, threading.Thread] = {}
        # What a preparation in the background was refused for, until the next prepare has told it.
        self._untold: dict[str, Refused] = {}

    # -- the agent's side ------------------------------------------------------------------------------------

    def handle(self, instruction: Instruction, arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        """Answer one instruction; never raises for what the orchestrator or a train did."""
        try:
            match instruction.kind:
                case Kind.PREPARE:
                    return self._prepare(instruction), None
                case Kind.FINISH:
                    return self._finish(instruction), None
                case _:
                    with self._warm.lock(instruction.order_digest):
                        return self._message(instruction, arrays)
        except StorageError as error:
            log.error("instruction.storage", extra={"reason": error.message})  # noqa: TRY400 - no text of others
            return self._outbox.status(instruction, Status.FAILED, RefusalCode.STATION_STORAGE), None
        except RefusedError as error:
            return self._refuse(instruction, Refused.because(RefusalCode(error.code), error.message)), None
        except NetworkError as error:
            log.warning("instruction.network", extra={"reason": error.message})
            return self._outbox.status(instruction, Status.FAILED, RefusalCode.NETWORK_UNAVAILABLE), None
        except UnavailableError as error:
            log.warning("instruction.unavailable", extra={"reason": error.message})
            return self._outbox.status(instruction, Status.FAILED, RefusalCode.ENGINE_UNAVAILABLE), None
        except PhtError as error:
            log.error("instruction.fault", extra={"reason": type(error).__name__})  # noqa: TRY400
            return self._outbox.status(instruction, Status.FAILED, RefusalCode.STATION_FAULT), None

    def run_over(self, order_digest: str) -> None:
        """Stop what is warm for an order that no Flower run carries; the order itself stays as it is."""

        def let_go() -> None:
            with self._warm.lock(order_digest):
                self._warm.let_go(order_digest, RunEvent.RECOVER)

        # A message under way holds the lock; the agent does not wait for it.
        threading.Thread(target=let_go, name=f"over-{order_digest[7:15]}", daemon=True).start()

    # -- prepare ---------------------------------------------------------------------------------------------

    def _prepare(self, instruction: Instruction) -> StationReply:
        envelope = (instruction.order or "").encode()
        try:
            digest = digest_of(unsafe_payload(envelope, PAYLOAD_TYPE))
        except TrustError:
            return self._refuse(instruction, Refused.because(RefusalCode.ORDER_INVALID))
        if digest != instruction.order_digest:
            return self._refuse(
                instruction, Refused.because(RefusalCode.ORDER_INVALID, "another order's digest")
            )
        known = self._runs.get(digest)
        if known is not None and known.state in _SPENT:
            return self._refuse(instruction, Refused.because(_SPENT[known.state]))
        if known is not None and digest in self._workers and self._workers[digest].is_alive():
            # The worker holds the order's lock; an answer does not wait for it.
            return self._outbox.status(instruction, Status.PENDING, None, known)
        with self._warm.lock(digest):
            if (refused := self._untold.pop(digest, None)) is not None:
                return self._refuse(instruction, refused, audited=True)
            return self._consider(instruction, envelope)

    def _consider(self, instruction: Instruction, envelope: bytes) -> StationReply:
        """Verify an order, decide about it, and act on the decision."""
        verified = self._gatekeeper.verify(envelope, fresh=True)
        if isinstance(verified, Refused):
            self._warm.end_if_revoked(instruction.order_digest, verified)
            return self._refuse(instruction, verified)
        run = self._see(verified.value, envelope)
        try:
            decision = self._decide(run, verified.value)
        except NetworkError as error:
            log.warning("prepare.network", extra={"reason": error.message})
            return self._outbox.status(instruction, Status.PENDING, None, run)
        if isinstance(decision, Refused):
            return self._not_now(instruction, run, decision)
        if run.state is RunState.READY and self._warm.has(run.order_digest):
            return self._outbox.status(instruction, Status.ACCEPTED, None, run)
        if run.state in _WAITING:
            if self._is_full(run.order_digest):
                return self._refuse(instruction, Refused.because(RefusalCode.RESOURCES_BUSY))
            run = self._admit(run)
        elif run.state is not RunState.PREPARING:
            run = self._runs.transition(run.order_digest, RunEvent.RECOVER)
        self._work_on(run, decision.value)
        return self._outbox.status(instruction, Status.PENDING, None, run)

    def _see(self, verified: VerifiedOrder, envelope: bytes) -> Run:
        order = verified.order
        run = self._runs.see(
            NewOrder(verified.digest, order.order_id, envelope, order.policy_id, order.policy_version)
        )
        if run.state is RunState.REFUSED:
            run = self._runs.transition(run.order_digest, RunEvent.REASSESS)
        return run

    def _decide(self, run: Run, verified: VerifiedOrder) -> Permitted[Admitted] | Refused:
        try:
            manifest = self._gatekeeper.manifest(verified)
        except (NotFoundError, TrustError) as error:
            return Refused.because(RefusalCode.IMAGE_UNAVAILABLE, error.message)
        if isinstance(manifest, Refused):
            return manifest
        return self._gatekeeper.decide(run, verified, manifest.value)

    def _not_now(self, instruction: Instruction, run: Run, refused: Refused) -> StationReply:
        if {reason.code for reason in refused.reasons} == {RefusalCode.OPERATOR_PENDING}:
            if run.state is RunState.SEEN:
                self._runs.transition(run.order_digest, RunEvent.ASK_OPERATOR)
            return self._outbox.status(instruction, Status.PENDING, RefusalCode.OPERATOR_PENDING, run)
        self._warm.let_go(run.order_digest, RunEvent.RECOVER)
        current = self._runs.get(run.order_digest) or run
        if (
            current.state in {*_WAITING, RunState.PREPARING, RunState.READY}
            and current.state is not RunState.REFUSED
        ):
            self._runs.transition(
                run.order_digest, RunEvent.REFUSE, code=refused.code, detail=describe(refused)
            )
        return self._refuse(instruction, refused, audited=True)

    def _admit(self, run: Run) -> Run:
        if run.state is RunState.SEEN:
            return self._runs.transition(run.order_digest, RunEvent.ADMIT)
        # The operator's word moved it on already, or the hospital no longer asks for one.
        event = (
            RunEvent.APPROVE if run.state in {RunState.WAITING_OPERATOR, RunState.HELD} else RunEvent.ADMIT
        )
        return self._runs.transition(run.order_digest, event)

    def _is_full(self, besides: str) -> bool:
        busy = [run for run in self._runs.list(HOLDS_RESOURCES) if run.order_digest != besides]
        return len(busy) >= self._runs_at_once

    def _work_on(self, run: Run, admitted: Admitted) -> None:
        thread = threading.Thread(
            target=self._prepare_in_background, args=(run, admitted), name=f"prepare-{run.order_digest[7:15]}"
        )
        thread.daemon = True
        self._workers[run.order_digest] = thread
        thread.start()

    def _prepare_in_background(self, run: Run, admitted: Admitted) -> None:
        with self._warm.lock(run.order_digest):
            try:
                result = self._warm.make_ready(run, admitted)
                if isinstance(result, Refused):
                    self._untold[run.order_digest] = result
            except (NetworkError, UnavailableError) as error:
                # It stays in preparation: the next prepare tries again.
                log.warning("preparation.unavailable", extra={"reason": error.message})
            except PhtError as error:
                log.error("preparation.failed", extra={"reason": type(error).__name__})  # noqa: TRY400
                self._untold[run.order_digest] = Refused.because(_code_of(error))
                self._runs.transition(
                    run.order_digest, RunEvent.REFUSE, code=_code_of(error), detail=error.message
                )
            except Exception:  # the outermost boundary of this thread: the order must not hang in preparation
                log.exception("preparation.bug")
                self._runs.transition(run.order_digest, RunEvent.REFUSE, code=RefusalCode.STATION_FAULT)

    # -- messages --------------------------------------------------------------------------------------------

    def _message(self, instruction: Instruction, arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        run = self._runs.get(instruction.order_digest)
        if run is None:
            return self._refuse(instruction, Refused.because(RefusalCode.INSTRUCTION_UNKNOWN_ORDER)), None
        if run.state in _SPENT:
            return self._refuse(instruction, Refused.because(_SPENT[run.state])), None
        admitted = self._readmit(run)
        if isinstance(admitted, Refused):
            return self._refuse(instruction, admitted), None
        if (recorded := self._rounds.recorded(instruction)) is not None:
            return recorded
        if reason := _outside_the_order(instruction, admitted.value):
            return self._refuse(instruction, Refused((reason,))), None
        try:
            prepared = self._warm.warm(run, admitted.value)
        except TrainStartError as error:
            return self._rounds.failed(instruction, run, error.failure, ()), None
        if isinstance(prepared, Refused):
            return self._refuse(instruction, prepared), None
        self._runs.transition(run.order_digest, RunEvent.BEGIN)
        try:
            return self._rounds.answer(instruction, arrays, run, prepared.value)
        finally:
            self._after(run.order_digest)

    def _readmit(self, run: Run) -> Permitted[Admitted] | Refused:
        """Ask every rule again, as for each message (invariant I7); a run whose policy is gone ends here."""
        verified = self._gatekeeper.verify(run.envelope, fresh=False)
        if isinstance(verified, Refused):
            self._warm.end_if_revoked(run.order_digest, verified)
            return verified
        try:
            decision = self._decide(run, verified.value)
        except NetworkError:
            return Refused.because(RefusalCode.IMAGE_UNAVAILABLE)
        if isinstance(decision, Refused):
            self._warm.let_go(run.order_digest, RunEvent.RECOVER)
        return decision

    def _after(self, order_digest: str) -> None:
        run = self._runs.transition(order_digest, RunEvent.ANSWERED)
        if run.state in _SPENT:
            self._warm.let_go(order_digest, None)

    # -- ends ------------------------------------------------------------------------------------------------

    def _finish(self, instruction: Instruction) -> StationReply:
        with self._warm.lock(instruction.order_digest):
            run = self._runs.get(instruction.order_digest)
            if run is None:
                return self._refuse(instruction, Refused.because(RefusalCode.INSTRUCTION_UNKNOWN_ORDER))
            if run.state not in _SPENT:
                self._warm.let_go(run.order_digest, None)
                run = self._runs.transition(run.order_digest, RunEvent.FINISH)
            return self._outbox.status(instruction, Status.FINISHED, None, run)

    def _refuse(self, instruction: Instruction, refused: Refused, *, audited: bool = False) -> StationReply:
        run = self._runs.get(instruction.order_digest)
        if not audited:
            self._audit.append(
                AuditRecord(
                    event=AuditEvent.INSTRUCTION_REFUSED,
                    actor=STATION_ACTOR,
                    outcome="refused",
                    object=instruction.order_digest,
                    codes=tuple(dict.fromkeys(reason.code.value for reason in refused.reasons)),
                    numbers={"round": instruction.round, "attempt": instruction.attempt},
                    detail=f"{instruction.kind}: {describe(refused)}"[:2000],
                )
            )
        return self._outbox.status(instruction, Status.REFUSED, refused.code, run)


def _outside_the_order(instruction: Instruction, admitted: Admitted) -> Reason | None:
    """Return how an instruction leaves the order it claims to carry."""
    order = admitted.order
    if instruction.kind.value not in order.stages:
        return Reason(RefusalCode.ORDER_KIND)
    if instruction.round > order.rounds:
        return Reason(RefusalCode.ORDER_ROUND)
    if dict(instruction.config) != dict(order.hyperparameters):
        return Reason(RefusalCode.ORDER_CONFIG, "not the hyperparameters that the order signs")
    if (instruction.weights is None) != (order.initial_weights is None):
        return Reason(RefusalCode.ORDER_WEIGHTS)
    first = instruction.round == 1 and instruction.kind.value == order.stages[0]
    if first and instruction.weights is not None and order.initial_weights is not None:
        named = (order.initial_weights.digest, order.initial_weights.size)
        if (instruction.weights.digest, instruction.weights.size) != named:
            return Reason(RefusalCode.ORDER_WEIGHTS, "not the initial weights that the order signs")
    return None


def _code_of(error: PhtError) -> RefusalCode:
    if isinstance(error, RefusedError):
        return RefusalCode(error.code)
    if isinstance(error, StorageError):
        return RefusalCode.STATION_STORAGE
    if isinstance(error, TrainStartError):
        return RefusalCode.TRAIN_CRASHED
    return RefusalCode.STATION_FAULT
