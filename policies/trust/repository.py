"""The board's side of the repository: what is listed, and publishing it.

A folder holds the repository exactly as a static mirror serves it (``metadata/``, ``targets/``, consistent snapshots),
and two more that no mirror gets: ``draft/`` (`policies.trust.root`) and ``staged/`` (what the next publication adds).
Makes no timestamp: that is the freshness witness's (`policies.trust.witness`).

Invariants: a file under a published name never changes; the snapshot is written last, so a crash leaves the state
before or the state after; nothing is staged that a reader would refuse.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

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
from policies.files import exclusive_lock, write_atomically
from policies.opinions import OPINION_PAYLOAD_TYPE, Opinion, opinion_target
from policies.policy import Policy
from policies.purposes import PURPOSES_TARGET, PurposeTable
from policies.refusals import Permitted, RefusalCode, Refused
from policies.signing import Signer, unsafe_payload, verify_envelope
from policies.trust.listing import hashed, next_listing
from policies.trust.metadata import read_metadata, versions, whole_seconds
from policies.trust.root import BoardRoot, RootPlan
from policies.trust.verification import (
    REVOKED_TARGET,
    MemberOpinion,
    PolicyInForce,
    Revocation,
    RevocationList,
    RevokedRequester,
    RevokedStation,
    parse_policy_target,
    verify_opinion,
    verify_policy,
    verify_purposes,
    verify_register,
)

ROOT_LIFETIME = timedelta(days=365)
TARGETS_LIFETIME = timedelta(days=90)
SNAPSHOT_LIFETIME = timedelta(days=90)
"""As long as the targets': both are the secretary's, made in one go; the timestamp is what bounds freshness."""


_BoardDocument = TypeVar("_BoardDocument", StationRegister, PurposeTable)


@dataclass(frozen=True, slots=True)
class Publication:
    """What a publication did.

    Attributes:
        version: of the targets metadata.
        added: target paths that were not listed before, or changed.
        removed: target paths that are listed no longer.
        changed: False where there was nothing to publish.
    """

    version: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: bool


class BoardRepository:
    """One board's repository in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self.root = BoardRoot(folder)
        self._staged = folder / "staged"

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
            raise UsageError(f"{folder.name}: holds a repository already")
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

    def _stage(self, path: str, data: bytes) -> None:
        write_atomically(self._staged / path, data)

    def staged(self) -> dict[str, bytes]:
        """Return what the next publication adds, by target path."""
        return {
            str(path.relative_to(self._staged)): path.read_bytes()
            for path in sorted(self._staged.rglob("*.json"))
            if not path.name.startswith(".")
        }

    def listed(self) -> dict[str, bytes]:
        """Return what is published, by target path."""
        if not versions(self.metadata, Snapshot.type):
            return {}
        return {
            path: (self.targets / hashed(path, info)).read_bytes()
            for path, info in self.targets_metadata().targets.items()
        }

    def snapshot(self) -> Snapshot:
        """Return the newest snapshot.

        Raises:
            NotFoundError: nothing was published yet.
        """
        found = versions(self.metadata, Snapshot.type)
        if not found:
            raise NotFoundError("nothing is published yet", hint="Run `pht-board publish`.")
        return read_metadata(self.metadata / f"{found[-1]}.snapshot.json", Snapshot)

    def targets_metadata(self) -> Targets:
        """Return the targets metadata that the newest snapshot names."""
        version = self.snapshot().meta["targets.json"].version
        return read_metadata(self.metadata / f"{version}.targets.json", Targets)

    def timestamp(self) -> Timestamp | None:
        """Return the witness's newest word, or None before its first."""
        path = self.metadata / "timestamp.json"
        return read_metadata(path, Timestamp) if path.exists() else None

    def publish(self, secretary: Signer, *, now: datetime, renew: bool = False) -> Publication:
        """Put what is staged into force, once the witness has vouched for it.

        1. Target files, under names that hold their digest.
        2. Targets metadata that lists them, 3. the snapshot that names it: the step that counts.
        4. The staging area is emptied; done again after a crash, nothing changes.

        Args:
            secretary: holds the key of targets and snapshot.
            now: the present.
            renew: publish even where nothing changed, for a new lifetime.

        Raises:
            TrustError: the root is not in force, or the key is not the secretary's.
        """
        with exclusive_lock(self.folder / ".lock"):
            root = self.root.in_force()
            if secretary.crypto_signer.public_key.keyid not in root.roles[Targets.type].keyids:
                raise TrustError(
                    "this key is not the secretary's", hint="The root names the key that may publish."
                )
            before = self.listed()
            after = next_listing(before, self.staged())
            first = not versions(self.metadata, Snapshot.type)
            if before == after and not (first or renew or self._needs_renewal(root, now)):
                self._empty_staging()
                return Publication(self.targets_metadata().version, (), (), changed=False)
            version = self._write_listing(after, secretary, now)
            self._empty_staging()
            added = tuple(sorted(path for path, data in after.items() if before.get(path) != data))
            return Publication(version, added, tuple(sorted(before.keys() - after.keys())), changed=True)

    def _needs_renewal(self, root: Root, now: datetime) -> bool:
        """Say whether half of a lifetime is over, or another secretary signed."""
        snapshot = Metadata[Snapshot].from_file(
            str(self.metadata / f"{self.snapshot().version}.snapshot.json")
        )
        try:
            root.verify_delegate(Snapshot.type, snapshot.signed_bytes, snapshot.signatures)
        except RepositoryError:
            return True
        return min(snapshot.signed.expires, self.targets_metadata().expires) - now < SNAPSHOT_LIFETIME / 2

    def _write_listing(self, listing: dict[str, bytes], secretary: Signer, now: datetime) -> int:
        moment = whole_seconds(now)
        infos = {path: TargetFile.from_data(path, data, ["sha256"]) for path, data in listing.items()}
        # 1
        for path, info in infos.items():
            place = self.targets / hashed(path, info)
            if not place.exists():
                write_atomically(place, listing[path])
        # 2
        version = max((0, *versions(self.metadata, Targets.type))) + 1
        targets = Metadata(Targets(version=version, expires=moment + TARGETS_LIFETIME, targets=infos))
        targets.sign(secretary.crypto_signer)
        data = targets.to_bytes()
        write_atomically(self.metadata / f"{version}.targets.json", data)
        # 3
        number = max((0, *versions(self.metadata, Snapshot.type))) + 1
        meta = {"targets.json": MetaFile.from_data(version, data, ["sha256"])}
        snapshot = Metadata(Snapshot(version=number, expires=moment + SNAPSHOT_LIFETIME, meta=meta))
        snapshot.sign(secretary.crypto_signer)
        write_atomically(self.metadata / f"{number}.snapshot.json", snapshot.to_bytes())
        return version

    def _empty_staging(self) -> None:
        for path in self.staged():
            (self._staged / path).unlink(missing_ok=True)
