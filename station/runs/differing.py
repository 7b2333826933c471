"""Whether a release may be told beside what its requester was told before; asked for what is analysed and evaluated.

Updates of training are not asked about: they are numbers by the million of the train's own choosing, which no set of patients describes;
noise is the answer there. Where a policy has noise, its accountant answers for the figures too, also for those that are asked twice.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from policies.manifest import TrainKind
from policies.policy import Policy
from policies.refusals import Reason, RefusalCode, Refused
from station.egress.differencing.differences import Asker, Differences
from station.egress.differencing.reading import told_by
from station.egress.release import Release, Withheld
from station.runs.prepared import Prepared

_STAGES = frozenset({"evaluate", "analyse"})


@dataclass(frozen=True, slots=True)
class Differing:
    """Asks the guard against differences for a run's releases."""

    differences: Differences

    def judge(self, prepared: Prepared, release: Release) -> Release | Withheld:
        """Leave out what would tell of too few patients beside an earlier release.

        Each table and metric is asked by itself: what is left out says no more than a table that a small cell keeps here, and is
        counted as that (hidden or told) in the bound on bits. Where the patients themselves changed by a few, it is every figure of
        their split. Of an analysis or evaluation of which nothing is left, nothing leaves.

        Raises:
            StorageError, StateError: the records cannot be read or written.
        """
        policy = prepared.admitted.verified.in_force.policy
        if release.stage not in _STAGES or policy.release.differential_privacy is not None:
            return release
        told = told_by(
            release, prepared.contract, prepared.cohort.patients_by_split, self.differences.numbers
        )
        verdict = self.differences.judge(_asker(policy, release.order_digest), told)
        why = "; ".join(f"{key}: {reason}" for key, reason in sorted(verdict.left_out.items()))
        kept = release.beside_others(verdict)
        if (
            verdict.left_out
            and not kept.metrics
            and not kept.tables
            and prepared.contract.kind is not TrainKind.TRAINING
        ):
            return Withheld((Reason(RefusalCode.RELEASE_DIFFERENCE, why),))
        return kept

    def settle_in(self, session: Session, policy: Policy, release: Release) -> Refused | None:
        """Ask once more about what was recorded meanwhile, in the transaction that records the release."""
        if release.beside is None:
            return None
        return self.differences.settle_in(session, _asker(policy, release.order_digest), release.beside)

    def note_in(self, session: Session, policy: Policy, release: Release) -> None:
        """Keep what is told, in the transaction from which on it counts as told."""
        if release.beside is not None:
            self.differences.note_in(session, _asker(policy, release.order_digest), release.beside)


def _asker(policy: Policy, order_digest: str) -> Asker:
    return Asker(policy.requester.key, policy.requester.organisation, order_digest)
