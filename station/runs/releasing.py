"""From a train's answer to a recorded release: what looks at it, in which order.

    answer -> guard (rules, and noise where the policy has it) -> beside earlier releases -> release
           -> consent, policy, budget and what was released meanwhile once more -> recorded
           └─ a person's word, where one is asked: parked until then, then looked at once more ─^

Each look may withhold; what one withholds, the next ones never see. A release leaves only when it is recorded.
"""

import math
from dataclasses import dataclass

from sqlalchemy.orm import Session

from policies.refusals import Reason, RefusalCode, Refused
from policies.wire.instructions import Instruction, encode
from station.admission.gatekeeper import Gatekeeper
from station.catalogue.catalogue import Catalogue
from station.egress.guard import Guard, GuardRequest
from station.egress.records.releases import ChainDigests, ReleaseStore, ReleaseTerms, StoredRelease
from station.egress.release import Release, ReplyStamp, Withheld, released_reply
from station.egress.review.reviews import Review
from station.runs.charging import Charging, unpaid_in
from station.runs.differing import Differing
from station.runs.prepared import Prepared
from station.runs.repository import Run, RunRepository
from station.runs.reviewing import Reviewing
from station.runs.states import TERMINAL, Decision
from station.sandbox.mapping import MapReply
from station.sandbox.spec import TrainReply


@dataclass(frozen=True, slots=True)
class Answered:
    """A message of a prepared run and what its train answered."""

    instruction: Instruction
    run: Run
    prepared: Prepared
    reply: TrainReply | MapReply


@dataclass(frozen=True, slots=True)
class Releasing:
    """Looks at answers, and records what may leave."""

    gatekeeper: Gatekeeper
    catalogue: Catalogue
    runs: RunRepository
    releases: ReleaseStore
    differing: Differing
    reviewing: Reviewing
    charging: Charging

    def judge(self, answered: Answered, asked: GuardRequest) -> Release | Withheld:
        """Hold an answer to the rules; its arrays are gone afterwards."""
        prepared = answered.prepared
        policy, answer = prepared.admitted.verified.in_force.policy, (asked.round, asked.stage)
        charge = self.charging.of(answered.run, policy, answer, prepared.cohort.patients)
        guard = Guard(prepared.contract, prepared.counts, prepared.roster, charge)
        reply = answered.reply
        if isinstance(reply, MapReply):
            result = guard.count(asked, reply.tally)
        else:
            head = {
                "type": "reply",
                "metrics": dict(reply.metrics),
                "rows": dict(reply.rows),
                "error": None,
            }
            result = guard.check(asked, head, reply.arrays)
            if reply.arrays is not None:
                reply.arrays.unlink(missing_ok=True)
        return result if isinstance(result, Withheld) else self.differing.judge(answered.prepared, result)

    def record(self, answered: Answered, release: Release) -> StoredRelease | Review | Refused:
        """Make a release the one answer to its message, park it for a person's word, or say why it must not leave.

        Raises:
            StorageError: nothing was recorded.
        """
        run, prepared = answered.run, answered.prepared
        policy = prepared.admitted.verified.in_force.policy
        quantum = policy.release.timing_quantum_s
        compute_s = math.ceil(answered.reply.seconds / quantum) * quantum if quantum else 0.0

        def make_reply(chains: ChainDigests) -> bytes:
            stamp = ReplyStamp(
                answered.instruction.attempt, run.correlation_id, compute_s, chains.ledger, chains.audit
            )
            return encode(released_reply(release, stamp))

        # What a transaction cannot wait for comes first: a new consent state, a new policy set.
        self.catalogue.sync()
        self.gatekeeper.policy_set(fresh=False)
        if self.reviewing.is_asked(prepared.admitted.manifest.kind, policy):
            waiting = self.reviewing.park(
                release, run, policy, prepared.used, (answered.instruction.attempt, compute_s),
                lambda session: self._check(session, run, prepared, release),
            )  # fmt: skip
            if waiting is not None:
                return waiting
        terms = ReleaseTerms(
            policy_id=policy.id,
            maximum_releases=policy.runs.releases,
            on_behalf_of=run.requester,
            purpose=policy.purpose.code.value,
            check=lambda session: self._check(session, run, prepared, release),
            also=lambda session: self.differing.note_in(session, policy, release),
        )
        recorded = self.releases.record(release, terms, make_reply)
        return recorded if isinstance(recorded, Refused) else recorded.release

    def _check(self, session: Session, run: Run, prepared: Prepared, release: Release) -> Refused | None:
        """The last look, inside the transaction that makes the release (invariant I7)."""
        current = self.runs.get_in(session, run.order_digest)
        if current.state in TERMINAL or current.decision in {Decision.HELD, Decision.STOPPED}:
            return Refused.because(RefusalCode.RUN_STOPPED)
        if prepared.ended_by is not None:
            return Refused.because(prepared.ended_by)
        if reason := self.gatekeeper.no_longer_in_force(prepared.admitted.verified):
            return Refused((reason,))
        consenting = self.gatekeeper.consenting(prepared.admitted)
        if isinstance(consenting, Refused):
            return consenting
        if not consenting.covers(prepared.used):
            return Refused((Reason(RefusalCode.CONSENT_WITHDRAWN),))
        policy = prepared.admitted.verified.in_force.policy
        return unpaid_in(session, policy, release) or self.differing.settle_in(session, policy, release)
