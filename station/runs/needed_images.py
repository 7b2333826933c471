"""Which images the station still needs: those of orders that are not over, and those that a policy in force names."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from policies.errors import DocumentError, TrustError
from policies.order import unverified_order
from policies.refusals import Permitted, Refused
from policies.trust.policy_set import PolicySet
from station.runs.repository import RunRepository

log = logging.getLogger(__name__)

Policies = Callable[[], Permitted[PolicySet] | Refused]


def _unknown() -> Permitted[PolicySet] | Refused | None:
    return None


@dataclass(slots=True)
class NeededImages:
    """Answers `station.images.room.Needs`.

    Attributes:
        runs: the orders of this station.
        clock: the moment it is.
        policies: the verified policy set; set when there is one that can be asked.
    """

    runs: RunRepository
    clock: Callable[[], datetime]
    policies: Callable[[], Permitted[PolicySet] | Refused | None] = field(default=_unknown)

    def __call__(self) -> Mapping[str, tuple[str, ...]] | None:
        """Return what needs each image, by its config digest; None where the policies cannot be verified now."""
        known = self.policies()
        if not isinstance(known, Permitted):
            return None
        needed: dict[str, list[str]] = {}
        for policy_id, version in sorted(known.value.envelopes):
            found = known.value.find(policy_id, version)
            if isinstance(found, Permitted) and found.value.policy.valid_until > self.clock():
                for digest in found.value.policy.image_config_digests:
                    needed.setdefault(digest, []).append(f"policy {policy_id} v{version}")
        for run in self.runs.list():
            if run.spent:
                continue
            try:
                # It was verified when it came; here it only says which image it is about.
                order = unverified_order(run.envelope)
            except (TrustError, DocumentError):
                log.warning("images.order_not_read")
                return None
            if order.expires > self.clock():
                needed.setdefault(order.image_config_digest, []).append(f"order {run.order_digest[7:19]}")
        return {digest: tuple(words) for digest, words in needed.items()}
