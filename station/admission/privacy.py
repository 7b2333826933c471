"""What admission asks of the ledger of privacy: can everybody whom a run may be computed on be charged for what is to come?"""

from collections.abc import Collection
from dataclasses import replace
from typing import Protocol

from policies.rules.admission import Facts
from policies.rules.privacy_rules import Shortage, cost_to_come, granted


class PrivacyBooks(Protocol):
    """What noisy releases have cost each patient (`station.egress.privacy.ledger`)."""

    def shortage(self, policy_id: str, limit: int, cost: int, patients: Collection[str]) -> Shortage:
        """Return how many of these patients could not be charged so much more."""


class NoBooks:
    """Where nobody keeps what noise costs: nobody can be charged."""

    def shortage(self, policy_id: str, limit: int, cost: int, patients: Collection[str]) -> Shortage:
        """Everybody is short."""
        del policy_id, limit, cost
        return Shortage(len(patients), len(patients), len(patients))


def with_privacy(
    facts: Facts, books: PrivacyBooks, patients: Collection[str], *, answers: int, begun: bool
) -> Facts:
    """Return the facts with what the books say; as they are where the policy has no noise.

    Args:
        facts: of one order.
        books: the ledger.
        patients: everybody whose data the run may use now.
        answers: of the order that stand: recorded, waiting for a person, or withheld by one.
        begun: whether a container ran under the order.
    """
    privacy = facts.policy.release.differential_privacy
    if privacy is None:
        return facts
    cost = cost_to_come(facts.order, facts.policy, facts.manifest, answers, begun=begun)
    short = books.shortage(facts.policy.id, granted(privacy).units, cost.units, patients)
    return replace(facts, privacy=short)
