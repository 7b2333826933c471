"""What the station does with an instruction: the agent's handler.

    prepare              verify, decide, ask the operator, prepare in the background; answered at once, asked again
    train .. analyse     admit, give to the warm container, guard, release, push, answer
    finish               stop, wipe, spend the order

Delivery is idempotent by (order, round, kind): a repeated instruction gets the recorded release, byte for byte, also when its order
is finished: an orchestrator that was restored collects a run again by that. What is prepared, and how it ends, is `station.runs.warm`.
"""

import logging
import threading
from dataclasses import replace

from policies.documents import digest_of
from policies.errors import (
    NetworkError,
    NotFoundError,
    PhtError,
    RefusedError,
    StateError,
    StorageError,
    TrustError,
    UnavailableError,
)
from policies.order import PAYLOAD_TYPE
from policies.refusals import Permitted, RefusalCode, Refused
from policies.signing import unsafe_payload
from policies.wire.instructions import WIRE_VERSION, Instruction, Kind, StationReply, Status
from station.admission.gatekeeper import Admitted, Gatekeeper, VerifiedOrder
from station.audit.events import AuditEvent, AuditRecord, requester_actor
from station.audit.log import AuditLog
from station.runs.answering import Rounds
from station.runs.background import BackgroundPreparations
from station.runs.failing import Failing
from station.runs.outbox import Outbox
from station.runs.repository import STATION_ACTOR, NewOrder, Run, RunRepository
from station.runs.states import RunEvent, RunState
from station.runs.verdicts import SPENT, code_of, outside_the_order, why_spent
from station.runs.warm import WarmRuns, describe
from station.sandbox.spec import TrainStartError

log = logging.getLogger(__name__)


class RunService:
    """Implements the agent's `InstructionHandler` on the station's state."""

    def __init__(
        self,
        gatekeeper: Gatekeeper,
        runs: RunRepository,
        warm: WarmRuns,
        rounds: Rounds,
        failing: Failing,
        outbox: Outbox,
        audit: AuditLog,
        runs_at_once: int,
    ) -> None:
        self._gatekeeper = gatekeeper
        self._runs = runs
        self._warm = warm
        self._rounds = rounds
        self._failing = failing
        self._outbox = outbox
        self._audit = audit
        self._runs_at_once = runs_at_once
        self._preparing = BackgroundPreparations(runs, warm, failing)
        self._admitting = threading.Lock()
        # Orders whose next message prepares them again, which takes a place too.
        self._resuming: set[str] = set()

    # -- the agent's side ------------------------------------------------------------------------------------

    def handle(self, instruction: Instruction, arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        """Answer one instruction; never raises for what the orchestrator or a train did."""
        try:
            if instruction.version > WIRE_VERSION:
                return self._outbox.status(instruction, Status.REFUSED, RefusalCode.PROTOCOL_VERSION), None
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
            return self._refuse(instruction, Refused.because(code_of(error), error.message)), None
        except NetworkError as error:
            log.warning("instruction.network", extra={"reason": error.message})
            return self._outbox.status(instruction, Status.FAILED, RefusalCode.NETWORK_UNAVAILABLE), None
        except UnavailableError as error:
            log.warning("instruction.unavailable", extra={"reason": error.message})
            return self._outbox.status(instruction, Status.FAILED, RefusalCode.ENGINE_UNAVAILABLE), None
        except PhtError as error:
            log.error("instruction.fault", extra={"reason": type(error).__name__})  # noqa: TRY400
            return self._outbox.status(instruction, Status.FAILED, RefusalCode.STATION_FAULT), None

    def fault(self, instruction: Instruction) -> StationReply:
        """Answer that the station failed, through the ledger."""
        return self._outbox.status(instruction, Status.FAILED, RefusalCode.STATION_FAULT)

    def run_over(self, order_digest: str) -> None:
        """Stop what is warm for an order that no Flower run carries; the order itself stays as it is."""

        def let_go() -> None:
            try:
                with self._warm.lock(order_digest):
                    self._warm.let_go(order_digest, RunEvent.RECOVER)
            except PhtError as error:
                log.error("run_over.fault", extra={"reason": type(error).__name__})  # noqa: TRY400

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
        if known is not None and known.state in SPENT:
            return self._refuse(instruction, Refused.because(why_spent(known)))
        lock = self._warm.lock(digest)
        if not lock.acquire(blocking=False):
            # Its preparation or a message holds the lock; an answer does not wait for it.
            return self._outbox.status(instruction, Status.PENDING, None, known)
        try:
            if self._preparing.has(digest):
                # Its preparation is about to begin.
                return self._outbox.status(instruction, Status.PENDING, None, known)
            if (untold := self._preparing.take_untold(digest)) is not None:
                # Told once; who asks again has the order looked at again.
                return self._refuse(instruction, untold, audited=True)
            return self._consider(instruction, envelope)
        finally:
            lock.release()

    def _consider(self, instruction: Instruction, envelope: bytes) -> StationReply:
        """Verify an order, decide about it, and act on the decision."""
        verified = self._gatekeeper.verify(envelope, fresh=True)
        if isinstance(verified, Refused):
            self._warm.end_if_revoked(instruction.order_digest, verified)
            return self._refuse(instruction, verified)
        run = self._see(verified.value, envelope)
        waits = self._rounds.waits_for_a_person(run.order_digest)
        try:
            decision = self._decide(run, verified.value, priced=not waits)
        except NetworkError as error:
            log.warning("prepare.network", extra={"reason": error.message})
            return self._outbox.status(instruction, Status.PENDING, None, run)
        if isinstance(decision, Refused):
            return self._not_now(instruction, run, decision)
        if run.state is RunState.READY and self._warm.has(run.order_digest):
            return self._outbox.status(instruction, Status.ACCEPTED, None, run)
        if run.state is RunState.PREPARING and waits:
            # It is prepared again when a message needs it.
            return self._outbox.status(instruction, Status.ACCEPTED, None, run)
        # Nothing is at work under the lock: what is not ready is left over, and made again.
        self._warm.let_go(run.order_digest, RunEvent.RECOVER)
        with self._admitting:
            # Two orders at once must not both take the last place: what others changed since is asked again.
            decision = self._decide(run, verified.value)
            if isinstance(decision, Refused):
                return self._not_now(instruction, run, decision)
            if self._is_full(run.order_digest):
                return self._refuse(instruction, Refused.because(RefusalCode.RESOURCES_BUSY))
            run = self._admit(run)
            self._preparing.begin(run, decision.value)
        return self._outbox.status(instruction, Status.PENDING, None, run)

    def _see(self, verified: VerifiedOrder, envelope: bytes) -> Run:
        order, policy = verified.order, verified.in_force.policy
        run = self._runs.see(
            NewOrder(
                verified.digest,
                order.order_id,
                envelope,
                order.policy_id,
                order.policy_version,
                requester_actor(policy.requester.organisation),
                policy.purpose.code.value,
            )
        )
        if run.state is RunState.REFUSED:
            run = self._runs.transition(run.order_digest, RunEvent.REASSESS)
        return run

    def _decide(
        self, run: Run, verified: VerifiedOrder, *, priced: bool = True
    ) -> Permitted[Admitted] | Refused:
        try:
            manifest = self._gatekeeper.manifest(verified)
        except (NotFoundError, TrustError) as error:
            return Refused.because(RefusalCode.IMAGE_UNAVAILABLE, error.message)
        if isinstance(manifest, Refused):
            return manifest
        return self._gatekeeper.decide(run, verified, manifest.value, priced=priced)

    def _not_now(self, instruction: Instruction, run: Run, refused: Refused) -> StationReply:
        if {reason.code for reason in refused.reasons} == {RefusalCode.OPERATOR_PENDING}:
            if run.state is RunState.SEEN:
                self._runs.transition(run.order_digest, RunEvent.ASK_OPERATOR)
            return self._outbox.status(instruction, Status.PENDING, RefusalCode.OPERATOR_PENDING, run)
        self._warm.let_go(run.order_digest, RunEvent.RECOVER)
        self._warm.refuse(run.order_digest, refused)
        return self._refuse(instruction, refused, audited=True)

    def _admit(self, run: Run) -> Run:
        current = self._runs.get(run.order_digest) or run
        match current.state:
            case RunState.SEEN:
                return self._runs.transition(run.order_digest, RunEvent.ADMIT)
            case RunState.WAITING_OPERATOR | RunState.HELD:
                # The hospital no longer asks for the operator's word.
                return self._runs.transition(run.order_digest, RunEvent.APPROVE)
            case _:
                return current

    def _is_full(self, besides: str) -> bool:
        # What is held now, not what is on record: an order that nobody carries on must not keep others out.
        held = self._warm.orders() | self._preparing.orders() | frozenset(self._resuming)
        return len(held - {besides}) >= self._runs_at_once

    # -- messages --------------------------------------------------------------------------------------------

    def _message(self, instruction: Instruction, arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        run = self._runs.get(instruction.order_digest)
        if run is None:
            return self._refuse(instruction, Refused.because(RefusalCode.INSTRUCTION_UNKNOWN_ORDER)), None
        if run.state is RunState.FINISHED:
            return self._after_its_end(instruction, run)
        if run.state in SPENT:
            return self._refuse(instruction, Refused.because(why_spent(run))), None
        if run.state is RunState.BUSY:
            # Nothing is at work under the lock: the end of an earlier message could not be recorded.
            self._warm.let_go(run.order_digest, RunEvent.RECOVER)
            run = self._runs.get(run.order_digest) or run
        admitted = self._readmit(run, priced=False)
        if isinstance(admitted, Refused):
            return self._refuse(instruction, admitted), None
        if (recorded := self._rounds.recorded(instruction)) is not None:
            return recorded
        if reason := outside_the_order(instruction, admitted.value):
            return self._refuse(instruction, Refused((reason,))), None
        if (review := self._rounds.under_review(instruction, run)) is not None:
            self._let_go_while_waiting(run.order_digest)
            return review
        if admitted.value.verified.in_force.policy.release.differential_privacy is not None:
            # What stands was paid for; what the train is to be asked has its price.
            admitted = self._readmit(run, priced=True)
            if isinstance(admitted, Refused):
                return self._refuse(instruction, admitted), None
        with self._admitting:
            if not self._warm.has(run.order_digest) and self._is_full(run.order_digest):
                # Its place went to another while nothing of it was warm.
                return self._refuse(instruction, Refused.because(RefusalCode.RESOURCES_BUSY)), None
            self._resuming.add(run.order_digest)
        try:
            return self._ask(instruction, arrays, run, admitted.value)
        finally:
            self._resuming.discard(run.order_digest)

    def _after_its_end(self, instruction: Instruction, run: Run) -> tuple[StationReply, bytes | None]:
        """Answer a message of a finished order: what it released, as it is and never anew, and nothing else.

        It left for this very order once. Every rule is asked all the same, as for each message, but that the order is finished.
        """
        verified = self._gatekeeper.verify(run.envelope, fresh=False)
        if isinstance(verified, Refused):
            return self._refuse(instruction, verified), None
        decision = self._decide(replace(run, state=RunState.READY), verified.value, priced=False)
        if isinstance(decision, Refused):
            return self._refuse(instruction, decision), None
        recorded = self._rounds.recorded(instruction)
        return recorded or (self._refuse(instruction, Refused.because(why_spent(run))), None)

    def _ask(
        self, instruction: Instruction, arrays: bytes | None, run: Run, admitted: Admitted
    ) -> tuple[StationReply, bytes | None]:
        """Give a message to the run's train."""
        try:
            prepared = self._warm.warm(run, admitted)
        except TrainStartError as error:
            failed = self._failing.failed(instruction, run, error.failure, admitted)
            self._let_go_if_spent(run.order_digest)
            return failed, None
        if isinstance(prepared, Refused):
            return self._refuse(instruction, prepared), None
        try:
            self._runs.transition(run.order_digest, RunEvent.BEGIN)
        except StateError:
            return self._refuse(instruction, Refused.because(RefusalCode.RUN_STOPPED)), None
        try:
            return self._rounds.answer(instruction, arrays, run, prepared.value)
        finally:
            prepared.value.last_message = self._gatekeeper.now()
            self._runs.transition(run.order_digest, RunEvent.ANSWERED)
            self._let_go_if_spent(run.order_digest)
            self._let_go_while_waiting(run.order_digest)
            self._warm.end_if_dead(run)

    def _let_go_while_waiting(self, order_digest: str) -> None:
        """A person takes hours: container, GPU, cohort and place are free for others meanwhile, and no run hours pass."""
        if self._warm.has(order_digest) and self._rounds.waits_for_a_person(order_digest):
            self._warm.let_go(order_digest, RunEvent.RECOVER)

    def _readmit(self, run: Run, *, priced: bool) -> Permitted[Admitted] | Refused:
        """Ask every rule again, as for each message (invariant I7); a run whose policy is gone ends here.

        Args:
            run: of the message.
            priced: whether patients must have left what an answer costs them; not of one that was paid for.
        """
        verified = self._gatekeeper.verify(run.envelope, fresh=False)
        if isinstance(verified, Refused):
            self._warm.end_if_revoked(run.order_digest, verified)
            return verified
        decision = self._decide(run, verified.value, priced=priced)
        if isinstance(decision, Refused):
            self._warm.let_go(run.order_digest, RunEvent.RECOVER)
        return decision

    def _let_go_if_spent(self, order_digest: str) -> None:
        run = self._runs.get(order_digest)
        if run is not None and run.state in SPENT:
            self._warm.let_go(order_digest, None)

    # -- ends ------------------------------------------------------------------------------------------------

    def _finish(self, instruction: Instruction) -> StationReply:
        with self._warm.lock(instruction.order_digest):
            run = self._runs.get(instruction.order_digest)
            if run is None:
                return self._refuse(instruction, Refused.because(RefusalCode.INSTRUCTION_UNKNOWN_ORDER))
            if run.state not in SPENT:
                digest = run.order_digest
                run = self._warm.finish(run, lambda: self._runs.transition(digest, RunEvent.FINISH))
            return self._outbox.status(instruction, Status.FINISHED, None, run)

    def _refuse(self, instruction: Instruction, refused: Refused, *, audited: bool = False) -> StationReply:
        run = self._runs.get(instruction.order_digest)
        if not audited:
            self._audit.thinned.append(
                AuditRecord(
                    event=AuditEvent.INSTRUCTION_REFUSED,
                    actor=STATION_ACTOR,
                    outcome="refused",
                    on_behalf_of=None if run is None else run.requester,
                    purpose=None if run is None else run.purpose,
                    object=instruction.order_digest,
                    codes=tuple(dict.fromkeys(reason.code.value for reason in refused.reasons)),
                    numbers={"round": instruction.round, "attempt": instruction.attempt},
                    detail=f"{instruction.kind}: {describe(refused)}"[:2000],
                )
            )
        return self._outbox.status(instruction, Status.REFUSED, refused.code, run)
