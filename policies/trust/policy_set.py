"""The policies of one verified state of the board's repository, and the register of stations beside them.

A value: reads no file, asks no network, knows no clock. Invariant: a version that was withdrawn, or that a later one
replaced, never comes back, whatever the repository lists.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from policies.charter import Charter, StationRegister
from policies.refusals import Permitted, RefusalCode, Refused
from policies.trust.verification import PolicyInForce, verify_policy


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """Which state of the repository was verified, and until when it counts.

    Attributes:
        root_version: the version of the root, so of the charter.
        timestamp_version: the freshness witness's counter.
        targets_version: the secretary's counter.
        expires: the first moment at which any of its roles is stale.
        verified_at: when it was verified.
        reached: False where the mirror did not answer and this is the last verified state.
    """

    root_version: int
    timestamp_version: int
    targets_version: int
    expires: datetime
    verified_at: datetime
    reached: bool


@dataclass(frozen=True, slots=True)
class PolicySet:
    """What the board permits, as of one verified state.

    Attributes:
        state: which state, and until when it counts: ask `PolicyClient.refresh` again before that.
        charter: who decides.
        register: the stations that take part; None where the board has published none.
        envelopes: the listed policy files by (id, version), TUF-verified, member signatures not yet looked at.
        revoked: why a version was withdrawn, by (id, version).
        floor: per id, the highest version that this reader has ever seen withdrawn or replaced.
    """

    state: RepositoryState
    charter: Charter
    register: StationRegister | None
    envelopes: Mapping[tuple[str, int], bytes]
    revoked: Mapping[tuple[str, int], str]
    floor: Mapping[str, int]

    def find(self, policy_id: str, version: int) -> Permitted[PolicyInForce] | Refused:
        """Return the policy of that id and version if it is in force."""
        key = (policy_id, version)
        if key in self.revoked:
            return Refused.because(RefusalCode.POLICY_REVOKED, self.revoked[key])
        latest = max((listed for listed_id, listed in self.envelopes if listed_id == policy_id), default=0)
        if version < latest:
            return Refused.because(RefusalCode.POLICY_REVOKED, f"version {latest} replaces it")
        if version <= self.floor.get(policy_id, 0):
            return Refused.because(RefusalCode.POLICY_REVOKED, "it was withdrawn")
        if key not in self.envelopes:
            return Refused.because(RefusalCode.POLICY_MISSING)
        return verify_policy(self.envelopes[key], policy_id, version, self.charter)

    @property
    def policies(self) -> Mapping[tuple[str, int], PolicyInForce]:
        """All policies in force, by (id, version)."""
        found = {key: self.find(*key) for key in sorted(self.envelopes)}
        return {key: result.value for key, result in found.items() if isinstance(result, Permitted)}
