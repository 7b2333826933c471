"""What is used up of a policy: the counters that admission asks for, from the two places that keep them."""

from dataclasses import dataclass

from station.egress.records.releases import ReleaseStore
from station.runs.repository import RunRepository


@dataclass(frozen=True, slots=True)
class Counters:
    """Implements `station.admission.gatekeeper.Counters`."""

    runs: RunRepository
    releases: ReleaseStore

    def runs_used(self, policy_id: str, *, besides: str | None = None) -> int:
        """Orders that are or were a run of the policy, but `besides`."""
        return self.runs.runs_used(policy_id, besides=besides)

    def releases_used(self, policy_id: str) -> int:
        """Releases made under the policy, ever."""
        return self.releases.releases_used(policy_id)

    def releases_of(self, order_digest: str) -> int:
        """Releases made under the order."""
        return len(self.releases.list(order_digest))

    def answers_of(self, order_digest: str) -> int:
        """Messages of the order that are not asked of its train again: recorded, waiting for a person, or withheld by one."""
        return self.releases.answers_of(order_digest)
