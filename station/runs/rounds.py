"""One message of a run: weights in, the train's answer through the guard, one durable release out.

    inbound weights -> warm container -> guard -> record (one transaction) -> push -> reply

Invariants: a release leaves only after it is recorded; a recorded one is sent again as it is, never made again.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from policies.errors import StorageError
from policies.order import Stage
from policies.refusals import RefusalCode, Refused
from policies.wire.instructions import (
    MAX_INLINE_ARRAYS_BYTES,
    Instruction,
    StationReply,
    Status,
    decode_reply,
)
from station.admission.gatekeeper import Gatekeeper
from station.agent.blobs import BlobClient
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.egress.analyses.tally import stated_cells
from station.egress.guard import GuardRequest, keep_here
from station.egress.records.releases import ReleaseStore, StoredRelease
from station.egress.release import Release, Withheld
from station.egress.review.reviews import Review
from station.runs.canary import Canary, Trained
from station.runs.clock import RunClock
from station.runs.failing import Failing
from station.runs.inbound import InboundWeights
from station.runs.moments import Moments
from station.runs.outbox import Outbox
from station.runs.prepared import Evaluated, Prepared
from station.runs.releasing import Answered, Releasing
from station.runs.repository import STATION_ACTOR, Run, RunRepository
from station.runs.usage import note_use
from station.sandbox.mapping import MapReply, MapSession
from station.sandbox.spec import (
    MIB,
    ExitClass,
    ReplyLimits,
    TrainFailure,
    TrainReply,
    TrainRequest,
    head_bytes,
)
from station.settings import StationSettings

Answer = tuple[StationReply, bytes | None]
Outcome = TrainFailure | tuple[Answered, Release | Withheld]

_STAGES: dict[str, Stage] = {"train": "train", "evaluate": "evaluate", "analyse": "analyse"}


@dataclass(frozen=True, slots=True)
class TrainRounds:
    """Answers the messages of prepared runs."""

    settings: StationSettings
    gatekeeper: Gatekeeper
    runs: RunRepository
    releases: ReleaseStore
    audit: AuditLog
    blobs: BlobClient
    outbox: Outbox
    failing: Failing
    clock: RunClock
    releasing: Releasing
    canary: Canary
    moments: Moments = field(default_factory=Moments)

    def recorded(self, instruction: Instruction) -> Answer | None:
        """Return the release that answers this (order, round, kind), sent again as it is, or None."""
        stored = self.releases.find(
            instruction.order_digest, instruction.round, _STAGES[instruction.kind.value]
        )
        if stored is None:
            return None
        if stored.purged is not None:
            run = self.runs.get(stored.order_digest)
            return self.outbox.status(instruction, Status.REFUSED, RefusalCode.RELEASE_PURGED, run), None
        if self.releasing.reviewing.is_first_answer(instruction):
            # Recorded when a person released it; nobody has been sent it before.
            return self._send(stored)
        self.audit.thinned.append(
            AuditRecord(
                event=AuditEvent.RELEASE_REPEATED,
                actor=STATION_ACTOR,
                object=stored.order_digest,
                numbers={"round": stored.round, "attempt": instruction.attempt},
                detail=f"stage {stored.stage}",
            ),
            stored.order_digest,
        )
        entry = self.releases.entry_of(stored).model_copy(update={"repeated": True})
        self.outbox.repeats.enter(
            "repeated", entry, code=f"{stored.stage}-{stored.round}", about=stored.order_digest
        )
        return self._send(stored)

    def under_review(self, instruction: Instruction, run: Run) -> Answer | None:
        """Return what is answered where a person is to look at what the train returned; None where the train is to be asked."""
        found = self.releasing.reviewing.answer(instruction)
        return None if found is None else (self.outbox.status(instruction, *found, run), None)

    def waits_for_a_person(self, order_digest: str) -> bool:
        """Whether something that this order's train returned waits for a person."""
        return self.releasing.reviewing.waits(order_digest)

    def _under_review(self, instruction: Instruction, run: Run) -> StationReply:
        status, code = self.releasing.reviewing.answer(instruction) or (
            Status.FAILED,
            RefusalCode.STATION_FAULT,
        )
        return self.outbox.status(instruction, status, code, run)

    def answer(self, instruction: Instruction, arrays: bytes | None, run: Run, prepared: Prepared) -> Answer:
        """Give one message to the warm train and return what may leave.

        1. The inbound weights are the ones named, in the layout of the initial ones.
        2. Use of the data is audited; the train is asked, under ceilings and a deadline.
        3. The guard judges the answer; where the policy has a limit, the canary scores the update.
        4. Policy, consent and budget are asked once more in the transaction that records the release.
        5. Where a person is to look at it, it is parked instead, and the answer is that it waits.
        6. The arrays are pushed; then the reply may go.

        With the policy's quantum, 4 begins at its next multiple, counted from when the station took the instruction up. What 3
        puts on record (a charge, a score) waits too: it begins at a multiple of its own where the policy asks for any of that.

        Raises:
            NetworkError: the orchestrator's blobs do not answer.
            StorageError: the disk.
        """
        since = self.moments.now()
        inbound = InboundWeights(self.blobs).take(instruction, arrays, prepared)
        if isinstance(inbound, Refused):
            return self.outbox.status(instruction, Status.REFUSED, inbound.code, run), None
        self._note(run, prepared, AuditEvent.DATA_USED, instruction)
        rules = prepared.admitted.verified.in_force.policy.release
        quantum = rules.timing_quantum_s
        # The heads of the chains can be asked for at any moment.
        first = quantum if rules.quanta_of(instruction.kind.value) > 1 else 0.0
        with self.moments.holding(since, quantum, lambda: prepared.ended_by is not None) as held:
            with self.moments.holding(since, first, lambda: prepared.ended_by is not None) as computed:
                reply = self._ask(instruction, run, prepared, inbound)
            outcome: Outcome
            if isinstance(reply, TrainFailure):
                outcome = reply
            elif computed.over:
                outcome = TrainFailure(ExitClass.CRASH, detail="the station ended it")
            else:
                outcome = self._judged(Answered(instruction, run, prepared, reply), inbound, since)
        if held.over and prepared.ended_by is not None:
            # As where it was still computing: whether it was done by then is not told.
            return self.outbox.status(instruction, Status.FAILED, prepared.ended_by, run), None
        if _is_no_answer(outcome) and (ended := self._ended(instruction, run, prepared)) is not None:
            return ended, None
        if isinstance(outcome, TrainFailure):
            return self.failing.failed(instruction, run, outcome, prepared.admitted), None
        answered, release = outcome
        if isinstance(release, Withheld):
            return self.failing.withheld(instruction, run, release, prepared.admitted), None
        told = replace(answered.reply, seconds=held.seconds(answered.reply.seconds))
        recorded = self.releasing.record(replace(answered, reply=told), release)
        if isinstance(recorded, Review):
            return self._under_review(instruction, run), None
        if isinstance(recorded, Refused):
            return self.outbox.status(instruction, Status.WITHHELD, recorded.code, run), None
        if _STAGES[instruction.kind.value] != "train":
            prepared.evaluated = Evaluated(instruction.round, inbound)
        return self._send(recorded)

    def _ended(self, instruction: Instruction, run: Run, prepared: Prepared) -> StationReply | None:
        """Return what is told where the station itself ended the container, or its time is over; None for the train's own doing."""
        if prepared.ended_by is not None:
            return self.outbox.status(instruction, Status.FAILED, prepared.ended_by, run)
        if self.clock.is_spent(run.order_digest, _run_hours(prepared)):
            return self.failing.out_of_time(instruction, run)
        return None

    def _judged(
        self, answered: Answered, inbound: Path | None, since: float
    ) -> tuple[Answered, Release | Withheld]:
        """Hold what a train answered to every rule that takes time."""
        instruction, run, prepared = answered.instruction, answered.run, answered.prepared
        stage, out = _STAGES[instruction.kind.value], prepared.work / "release.safetensors"
        asked = GuardRequest(run.order_digest, instruction.round, stage, inbound, out)
        release = self.releasing.judge(answered, asked)
        if isinstance(release, Withheld):
            return answered, release
        return answered, self._scored(Trained(instruction, run, prepared, inbound, release, since))

    def _scored(self, trained: Trained) -> Release | Withheld:
        """Let what was trained leave only where it tells its own patients no better than the policy permits."""
        reason = self.canary.look(trained)
        return trained.release if reason is None else keep_here(trained.release, reason)

    def _ask(
        self, instruction: Instruction, run: Run, prepared: Prepared, inbound: Path | None
    ) -> TrainReply | MapReply | TrainFailure:
        session = prepared.session
        if session is None:
            return TrainFailure(ExitClass.CRASH, detail="no container")
        kind: Literal["train", "evaluate", "analyse"] = _STAGES[instruction.kind.value]
        resources = prepared.admitted.manifest.resources
        limit = float(
            min(resources.message_timeout_s, self.settings.ceilings.message_timeout_s, instruction.deadline_s)
        )
        # The order's own values: the instruction's are equal, but 1, 1.0 and true are equal too.
        request = TrainRequest(
            kind, instruction.round, dict(prepared.admitted.order.hyperparameters), inbound
        )
        limits = ReplyLimits(
            prepared.work / "reply.safetensors",
            prepared.contract.reply_arrays_limit(kind),
            head_bytes(stated_cells(prepared.admitted.manifest, prepared.roster)),
            keep_free_bytes=self.settings.ceilings.keep_free_mib * MIB,
        )
        if not isinstance(session, MapSession):
            # A train without a program uses up no container's time either.
            return session.exchange(request, limits, timeout_s=limit)
        # Its containers run within this call and at no other time; when it returns, they are gone.
        limit = min(limit, self.clock.left_s(run.order_digest, _run_hours(prepared)))
        with self.clock.counting(run.order_digest):
            return session.exchange(request, limits, timeout_s=limit)

    def _send(self, stored: StoredRelease) -> Answer:
        reply = decode_reply(stored.reply)
        if stored.arrays is None or reply.release is None:
            return reply, None
        if reply.release.size <= MAX_INLINE_ARRAYS_BYTES:
            return reply, _read(stored.arrays)
        self.blobs.push(reply.release, stored.arrays, stored.order_digest)
        return reply, None

    def _note(self, run: Run, prepared: Prepared, event: AuditEvent, instruction: Instruction) -> None:
        policy, now = prepared.admitted.verified.in_force.policy, self.gatekeeper.now()
        self.audit.append(
            AuditRecord(
                event=event,
                actor=STATION_ACTOR,
                on_behalf_of=run.requester,
                purpose=policy.purpose.code.value,
                object=run.order_digest,
                numbers={"round": instruction.round, "patients": prepared.counts.patients},
                detail=f"stage {instruction.kind} cohort {prepared.cohort.digest} policy {policy.id} v{policy.version}",
            ),
            lambda session: note_use(session, run.order_digest, policy, prepared.cohort, now),
        )


def _is_no_answer(outcome: Outcome) -> bool:
    """Whether a container did not answer: the train's own, or the one that was to score its update."""
    if isinstance(outcome, TrainFailure):
        return True
    release = outcome[1]
    return isinstance(release, Withheld) and release.code is RefusalCode.RELEASE_UNSCORED


def _run_hours(prepared: Prepared) -> float:
    return prepared.admitted.verified.in_force.policy.resources.run_hours


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"a release cannot be read ({error.strerror})") from error
