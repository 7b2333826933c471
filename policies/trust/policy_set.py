"""The policies of one verified state of the board's repository, and what the board publishes beside them.

A value: reads no file, asks no network, knows no clock. Invariants: a version that was withdrawn, or that a later one
replaced, never comes back, whatever the repository lists; nor does a requester's key or a station.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from policies.charter import Charter, StationRegister
from policies.decisions import DECISIONS_TARGET, Decisions
from policies.documents import load_json
from policies.errors import DocumentError, TrustError
from policies.purposes import PurposeTable
from policies.refusals import Permitted, RefusalCode, Refused
from policies.trust.revocations import RevocationList
from policies.trust.verification import MemberOpinion, PolicyInForce, verify_opinion, verify_policy


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
        purposes: which consents a purpose needs; None where the board has published no table.
        envelopes: the listed policy files by (id, version), TUF-verified, member signatures not yet looked at.
        revocations: all that this reader has ever seen withdrawn by name.
        floor: per id, the highest version that this reader has ever seen withdrawn or replaced.
        opinion_envelopes: the listed opinions by (policy id, version, member's key), not yet looked at.
        former_keys: of members and of development, in an earlier root and no longer.
        decisions_json: what the secretary published of refused requests and outcomes, not yet looked at.
        witness_keys: the public keys, hex, of the timestamp role.
    """

    state: RepositoryState
    charter: Charter
    register: StationRegister | None
    purposes: PurposeTable | None
    envelopes: Mapping[tuple[str, int], bytes]
    revocations: RevocationList
    floor: Mapping[str, int]
    opinion_envelopes: Mapping[tuple[str, int, str], bytes]
    decisions_json: bytes | None
    former_keys: frozenset[str] = frozenset()
    witness_keys: frozenset[str] = frozenset()

    def find(self, policy_id: str, version: int) -> Permitted[PolicyInForce] | Refused:
        """Return the policy of that id and version if it is in force."""
        key = (policy_id, version)
        for entry in self.revocations.revoked:
            if (entry.policy_id, entry.version) == key:
                return Refused.because(RefusalCode.POLICY_REVOKED, entry.reason)
        latest = max((listed for listed_id, listed in self.envelopes if listed_id == policy_id), default=0)
        if version < latest:
            return Refused.because(RefusalCode.POLICY_REVOKED, f"version {latest} replaces it")
        if version <= self.floor.get(policy_id, 0):
            return Refused.because(RefusalCode.POLICY_REVOKED, "it was withdrawn")
        if key not in self.envelopes:
            return Refused.because(RefusalCode.POLICY_MISSING)
        found = verify_policy(self.envelopes[key], policy_id, version, self.charter, self.former_keys)
        if isinstance(found, Permitted):
            for requester in self.revocations.requesters:
                if requester.key == found.value.policy.requester.key:
                    return Refused.because(RefusalCode.REQUESTER_REVOKED, requester.reason)
        return found

    @property
    def revoked_stations(self) -> frozenset[str]:
        """The stations that take part in nothing any more."""
        return frozenset(entry.name for entry in self.revocations.stations)

    def opinions(self, policy_id: str, version: int) -> tuple[MemberOpinion, ...]:
        """Return what members say of a policy in force; what is not a member's own word about it is left out."""
        found = self.find(policy_id, version)
        if isinstance(found, Refused):
            return ()
        opinions = []
        for (about, of_version, key), envelope in sorted(self.opinion_envelopes.items()):
            if (about, of_version) != (policy_id, version):
                continue
            try:
                opinions.append(verify_opinion(envelope, key, found.value, self.charter))
            except TrustError:
                continue
        return tuple(opinions)

    @property
    def decisions(self) -> Decisions:
        """What the public is told of refused requests and of outcomes.

        Raises:
            TrustError: the secretary published something else under that name.
        """
        if self.decisions_json is None:
            return Decisions(schema_version=1)
        try:
            return load_json(Decisions, self.decisions_json, what=DECISIONS_TARGET)
        except DocumentError as error:
            raise TrustError(error.message) from error

    @property
    def policies(self) -> Mapping[tuple[str, int], PolicyInForce]:
        """All policies in force, by (id, version)."""
        found = {key: self.find(*key) for key in sorted(self.envelopes)}
        return {key: result.value for key, result in found.items() if isinstance(result, Permitted)}
