"""The board's side of the repository: what may be staged for the next publication, and withdrawing.

Publishing it is `policies.trust.publication`. Invariant: nothing is staged that a reader would refuse.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from policies.charter import (
    POLICY_PAYLOAD_TYPE,
    REGISTER_TARGET,
    Charter,
    StationRegister,
    policy_target,
)
from policies.decisions import DECISIONS_TARGET, Decisions, RefusedRequest, RunOutcome
from policies.documents import canonical_json, load_json, load_yaml
from policies.errors import NotFoundError, RefusedError, TrustError, UsageError
from policies.opinions import OPINION_PAYLOAD_TYPE, Opinion, opinion_target
from policies.policy import Policy
from policies.purposes import PURPOSES_TARGET, PurposeTable
from policies.refusals import Permitted, RefusalCode, Refused
from policies.signing import Signer, unsafe_payload, verify_envelope
from policies.trust.metadata import whole_seconds
from policies.trust.publication import Publications
from policies.trust.revocations import (
    REVOKED_TARGET,
    Revocation,
    RevocationList,
    RevokedRequester,
    RevokedStation,
)
from policies.trust.root import RootPlan
from policies.trust.verification import (
    MemberOpinion,
    PolicyInForce,
    parse_policy_target,
    verify_opinion,
    verify_policy,
    verify_purposes,
    verify_register,
)

_BoardDocument = TypeVar("_BoardDocument", StationRegister, PurposeTable)


class BoardRepository(Publications):
    """One board's repository in a folder: what may be staged for the next publication."""

    @classmethod
    def create(
        cls, folder: Path, plan: RootPlan, root_signers: Sequence[Signer] = (), *, now: datetime
    ) -> "BoardRepository":
        """Make a repository whose first root awaits (or has) its members' signatures.

        Args:
            folder: must not hold a repository yet.
            plan: what the root says.
            root_signers: members whose keys are at hand now; others sign later with `BoardRoot.sign`.
            now: the present.

        Raises:
            UsageError: a repository is there already, or the plan contradicts itself.
        """
        repository = cls(folder)
        if repository.metadata.exists() or repository.root.drafted() is not None:
            raise UsageError(
                f"{folder.name}: holds a repository already",
                hint="Other keys or a new lifetime: `pht-board rotate`; another charter: `pht-board root`.",
            )
        repository.root.propose(plan, now=now)
        for signer in root_signers:
            repository.root.sign(signer)
        return repository

    def add_policy(self, envelope: bytes) -> PolicyInForce:
        """Stage a signed policy for the next publication.

        Raises:
            RefusedError: signatures or roles are missing, or this version was listed, replaced or withdrawn before.
            DocumentError: it contradicts itself.
        """
        payload = unsafe_payload(envelope, POLICY_PAYLOAD_TYPE)
        # Read before verified only to learn its name, and to tell its writer what is wrong with it and where.
        policy = load_yaml(Policy, payload, what="policy")
        result = verify_policy(envelope, policy.id, policy.version, self.root.charter())
        if isinstance(result, Refused):
            reason = result.reasons[0]
            raise RefusedError(
                reason.code, f"{policy.id} version {policy.version}: {reason.detail or reason.code}"
            )
        self._check_version(policy.id, policy.version, payload)
        if any(entry.key == policy.requester.key for entry in self.revocations().requesters):
            raise RefusedError(
                RefusalCode.REQUESTER_REVOKED, f"{policy.id}: the requester it names was withdrawn"
            )
        self._stage(policy_target(policy.id, policy.version), envelope)
        return result.value

    def _check_version(self, policy_id: str, version: int, payload: bytes) -> None:
        listed = self.listed()
        for path, data in listed.items():
            key = parse_policy_target(path)
            if key is None or key[0] != policy_id or key[1] < version:
                continue
            if key[1] == version and unsafe_payload(data, POLICY_PAYLOAD_TYPE) == payload:
                continue
            raise RefusedError(
                RefusalCode.POLICY_REVOKED,
                f"{policy_id}: version {key[1]} is published already",
                hint=f"Give the file version {key[1] + 1} and have it signed again.",
            )
        gone = [entry.version for entry in self.revocations().revoked if entry.policy_id == policy_id]
        if gone and version <= max(gone):
            raise RefusedError(
                RefusalCode.POLICY_REVOKED,
                f"{policy_id}: version {max(gone)} was withdrawn",
                hint=f"Give the file version {max(gone) + 1} and have it signed again.",
            )

    def set_register(self, envelope: bytes) -> StationRegister:
        """Stage a signed register of stations for the next publication.

        Raises:
            RefusedError: signatures are missing, or its version does not go up.
        """
        return self._set_document(REGISTER_TARGET, envelope, verify_register, "the register of stations")

    def set_purposes(self, envelope: bytes) -> PurposeTable:
        """Stage a signed table of purposes for the next publication.

        Raises:
            RefusedError: signatures are missing, or its version does not go up.
        """
        return self._set_document(PURPOSES_TARGET, envelope, verify_purposes, "the table of purposes")

    def _set_document(
        self,
        path: str,
        envelope: bytes,
        verify: Callable[[bytes, Charter], Permitted[_BoardDocument] | Refused],
        what: str,
    ) -> _BoardDocument:
        charter = self.root.charter()
        result = verify(envelope, charter)
        if isinstance(result, Refused):
            raise RefusedError(result.code, result.reasons[0].detail)
        before = self.listed().get(path)
        if before is not None and before != envelope:
            verified = verify(before, charter)
            if not isinstance(verified, Refused) and result.value.version <= verified.value.version:
                raise RefusedError(
                    RefusalCode.TRUST_ROLLBACK,
                    f"version {verified.value.version} of {what} is published already",
                    hint=f"Give it version {verified.value.version + 1} and have it signed again.",
                )
        self._stage(path, envelope)
        return result.value

    def add_opinion(self, envelope: bytes) -> MemberOpinion:
        """Stage a member's signed opinion of a policy that is listed or staged.

        Raises:
            NotFoundError: that policy is neither.
            TrustError: not a member's, not signed by that member, or about other bytes.
            UsageError: a dissent of a member who signed the policy, or conditions of one who did not.
        """
        charter = self.root.charter()
        # Read before verified only to learn which policy it is about.
        claim = load_json(Opinion, unsafe_payload(envelope, OPINION_PAYLOAD_TYPE), what="opinion")
        signed = (self.listed() | self.staged()).get(policy_target(claim.policy_id, claim.version))
        found = None if signed is None else verify_policy(signed, claim.policy_id, claim.version, charter)
        if not isinstance(found, Permitted):
            raise NotFoundError(
                f"{claim.policy_id} version {claim.version} is not published",
                hint="An opinion is published with the policy it is about.",
            )
        signers = verify_envelope(
            envelope, OPINION_PAYLOAD_TYPE, [member.key for member in charter.members], 1
        ).signers
        if len(signers) != 1:
            raise TrustError("an opinion is one member's", hint="Each member signs an opinion of their own.")
        (key,) = signers
        opinion = verify_opinion(envelope, key, found.value, charter)
        if (claim.verdict == "dissent") == (key in found.value.signers):
            raise UsageError(
                "a dissent of a member who signed"
                if claim.verdict == "dissent"
                else "conditions of a member who did not sign",
                hint="Conditions go with a signature, a dissent with none.",
            )
        self._stage(opinion_target(claim.policy_id, claim.version, key), envelope)
        return opinion

    def revoke(self, policy_id: str, version: int, reason: str, *, now: datetime) -> None:
        """Stage the withdrawal of a policy version; it counts when it is published.

        Raises:
            NotFoundError: no such version is listed or staged.
        """
        if policy_target(policy_id, version) not in self.listed() | self.staged():
            raise NotFoundError(
                f"{policy_id} version {version} is not published", hint="See `pht-board status`."
            )
        entry = Revocation(policy_id=policy_id, version=version, reason=reason, when=whole_seconds(now))
        self._withdraw(RevocationList(schema_version=1, revoked=(entry,)))

    def revoke_requester(self, key: str, reason: str, *, now: datetime) -> tuple[str, ...]:
        """Stage the withdrawal of a requester's key: it orders nothing any more, under any policy.

        Returns:
            The listed policies that name it.
        """
        entry = RevokedRequester(key=key, reason=reason, when=whole_seconds(now))
        self._withdraw(RevocationList(schema_version=1, requesters=(entry,)))
        charter = self.root.charter()
        policies = (
            verify_policy(data, *about, charter)
            for path, data in sorted(self.listed().items())
            if (about := parse_policy_target(path))
        )
        return tuple(
            f"{found.value.policy.id} version {found.value.policy.version}"
            for found in policies
            if isinstance(found, Permitted) and found.value.policy.requester.key == key
        )

    def revoke_station(self, name: str, reason: str, *, now: datetime) -> None:
        """Stage the withdrawal of a station: it takes part in nothing any more.

        Raises:
            NotFoundError: the register has no such station.
        """
        signed = (self.listed() | self.staged()).get(REGISTER_TARGET)
        register = None if signed is None else verify_register(signed, self.root.charter())
        if not isinstance(register, Permitted) or register.value.find(name) is None:
            raise NotFoundError(f"the register has no station {name}", hint="See `pht-board status`.")
        entry = RevokedStation(name=name, reason=reason, when=whole_seconds(now))
        self._withdraw(RevocationList(schema_version=1, stations=(entry,)))

    def _withdraw(self, more: RevocationList) -> None:
        self._stage(REVOKED_TARGET, canonical_json(self.revocations().joined_with(more)))

    def revocations(self) -> RevocationList:
        """Return all withdrawals, published or staged."""
        data = (self.listed() | self.staged()).get(REVOKED_TARGET)
        return (
            RevocationList(schema_version=1)
            if data is None
            else load_json(RevocationList, data, what=REVOKED_TARGET)
        )

    def announce(self, decision: RefusedRequest | RunOutcome) -> Decisions:
        """Stage one more decision for the public: a request that was refused, or what came of a run."""
        before = self.decisions()
        if isinstance(decision, RefusedRequest):
            after = before.model_copy(update={"refused": (*before.refused, decision)})
        else:
            after = before.model_copy(update={"outcomes": (*before.outcomes, decision)})
        self._stage(DECISIONS_TARGET, canonical_json(after))
        return after

    def decisions(self) -> Decisions:
        """Return all decisions for the public, published or staged."""
        data = (self.listed() | self.staged()).get(DECISIONS_TARGET)
        return (
            Decisions(schema_version=1) if data is None else load_json(Decisions, data, what=DECISIONS_TARGET)
        )
