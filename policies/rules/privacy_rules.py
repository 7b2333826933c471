"""May a run with noise be charged to its patients? What it costs, what the documents promise, and whom the ledger finds short.

Pure. The rules, in the order asked:
    1. no table is permitted under noise whose rows one patient could change all at once
    2. one run costs no more than the policy promises each patient
    3. nobody has less left, of the policy's budget or of the hospital's, than what is to come costs
"""

from dataclasses import dataclass

from policies.manifest import TrainManifest
from policies.order import RunOrder
from policies.policy import DifferentialPrivacy, Policy
from policies.privacy import NOTHING, Spent, cost_of, epsilon, queries_of_stage, spendable, unbounded_outputs
from policies.refusals import Reason, RefusalCode


@dataclass(frozen=True, slots=True)
class Shortage:
    """How many patients have less left than something costs.

    Attributes:
        of_policy: of what the policy grants each.
        of_hospital: of what the hospital grants each, over everything.
        patients: who were asked about.
    """

    of_policy: int
    of_hospital: int
    patients: int

    def __bool__(self) -> bool:
        """Whether anybody is short."""
        return self.of_policy > 0 or self.of_hospital > 0

    def in_words(self) -> str:
        """Say it to the hospital; numbers of patients stay there."""
        return (
            f"of {self.patients} patients {self.of_policy} have less left of the policy's budget than this costs, "
            f"and {self.of_hospital} of the hospital's"
        )


def granted(privacy: DifferentialPrivacy) -> Spent:
    """Return what a policy grants each patient."""
    return spendable(privacy.epsilon, privacy.delta)


def cost_of_run(order: RunOrder, policy: Policy, manifest: TrainManifest) -> Spent:
    """Return what an order costs each patient: the stages it asks for, in each of its rounds."""
    return _per_round(order, policy, manifest).times(order.rounds)


def cost_to_come(
    order: RunOrder, policy: Policy, manifest: TrainManifest, answers: int, *, begun: bool
) -> Spent:
    """Return what must be left for an order to be taken up now.

    Of one that has not begun, all of it. Of one under way the next release alone, at its cheapest: it was admitted with all of
    it, and what a crash costs twice shall not end what was begun before it must end. The charge itself decides.

    Args:
        order: verified.
        policy: in force.
        manifest: the train's.
        answers: of the order that stand, and are not charged again: recorded, waiting for a person, or withheld by one.
        begun: whether a container ran under it.
    """
    privacy = policy.release.differential_privacy
    if privacy is None or answers >= len(order.stages) * order.rounds:
        return NOTHING
    if not begun:
        return cost_of_run(order, policy, manifest)
    return min(cost_of(privacy, queries_of_stage(policy, manifest, stage)) for stage in order.stages)


def _per_round(order: RunOrder, policy: Policy, manifest: TrainManifest) -> Spent:
    privacy = policy.release.differential_privacy
    if privacy is None:
        return NOTHING
    costs = (cost_of(privacy, queries_of_stage(policy, manifest, stage)) for stage in order.stages)
    return sum(costs, NOTHING)


def privacy_reasons(
    order: RunOrder, policy: Policy, manifest: TrainManifest, short: Shortage | None
) -> list[Reason]:
    """Return why a run may not be charged to its patients.

    Args:
        order: verified.
        policy: in force.
        manifest: the train's.
        short: what the ledger says of what is to come; None where it was not asked.
    """
    privacy = policy.release.differential_privacy
    if privacy is None:
        return []
    found = []
    if tables := unbounded_outputs(policy, manifest):
        detail = f"no noise makes {', '.join(tables)} private: a program that sees everybody writes the rows"
        found.append(Reason(RefusalCode.RELEASE_NOT_PERMITTED, detail))
    cost = cost_of_run(order, policy, manifest)
    if cost > granted(privacy):
        detail = (
            f"the run costs epsilon {epsilon(cost, privacy.delta):.3g}, the policy grants {privacy.epsilon:g}"
        )
        found.append(Reason(RefusalCode.BUDGET_PRIVACY, detail))
    elif short:
        found.append(Reason(RefusalCode.BUDGET_PRIVACY, short.in_words()))
    return found
