"""Is a pack what it claims? Decided offline, by a reader who trusts the board's root and nothing else.

The steps, in order; a step that does not hold names the file and the reason, and what depends on it is not asked:

1. Container: every byte of the zip is accounted for (`policies.evidence.archive`).
2. Files: each has the digest that the description and the station's statement give it, and there are no others.
3. Repository: TUF from the reader's root, judged at the moment of the run.
4. Board: the policy and the register are listed there and signed as the charter demands; so are opinions and purposes.
5. Order: signed by the key that the policy names, within the policy; the train is the one that the policy names. Purposes,
   register and withdrawals permit it, by the rules that admission asks.
6. Statement: signed with the key that the register gives the station; it tells of this order under this policy.
7. Ledger: the run's entries stand at their places in the chain that ends in the signed head; each release is one of them.

What this cannot show: that the station left out nothing. The head in the statement is held against the heads that others
countersigned, and against the station's own ledger.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from policies.charter import (
    POLICY_PAYLOAD_TYPE,
    REGISTER_TARGET,
    Charter,
    RegisteredStation,
    StationRegister,
    policy_target,
)
from policies.documents import digest_of, load_json, load_yaml
from policies.errors import DocumentError, TrustError
from policies.evidence.admission import PublishedThen, check_admission
from policies.evidence.archive import (
    LEDGER,
    ORDER,
    POLICY,
    STATEMENT,
    TARGETS,
    TRAIN,
    TRUST,
    Pack,
    PackDamageError,
    open_pack,
)
from policies.evidence.chain import check_ledger
from policies.evidence.files import check_files
from policies.evidence.repository import RepositoryThen, belongs_to_run, verify_repository
from policies.evidence.statement import MAX_STATEMENT_ENVELOPE_BYTES, PAYLOAD_TYPE, RunFact, RunStatement
from policies.manifest import TrainManifest
from policies.order import PAYLOAD_TYPE as ORDER_PAYLOAD_TYPE
from policies.order import RunOrder
from policies.purposes import PURPOSES_TARGET, PurposeTable
from policies.refusals import Refused
from policies.rules.order_rules import manifest_reasons, order_reasons, verified_order
from policies.signing import unsafe_payload, verify_envelope
from policies.trust.revocations import REVOKED_TARGET, RevocationList
from policies.trust.verification import (
    PolicyInForce,
    parse_policy_target,
    verify_opinion,
    verify_policy,
    verify_purposes,
    verify_register,
)

Step = Literal["container", "files", "repository", "board", "order", "statement", "ledger"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step found.

    Attributes:
        step: which.
        holds: whether it does.
        where: the file that is wrong; empty where it holds.
        text: what was checked, or what is wrong.
    """

    step: Step
    holds: bool
    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome: every step's finding, and the run where its statement holds."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    run: RunFact | None

    @property
    def holds(self) -> bool:
        """Whether every step does."""
        return self.run is not None and all(finding.holds for finding in self.findings)


@dataclass(slots=True)
class _Reading:
    """What is known so far; each part is set by the step that vouches for it."""

    pack: Pack
    root: bytes
    now: datetime
    claim: RunFact
    notes: list[str] = field(default_factory=list)
    repository: RepositoryThen | None = None
    policy: PolicyInForce | None = None
    register: StationRegister | None = None
    purposes: PurposeTable | None = None
    withdrawn: frozenset[str] = frozenset()

    def target(self, path: str) -> bytes | None:
        name = TARGETS + path
        return self.pack.read(name) if name in self.pack.names else None


def verify_pack(path: Path, root: bytes, now: datetime) -> Verdict:
    """Verify a pack.

    Args:
        path: the pack, untrusted.
        root: root metadata that the reader has from the board itself.
        now: the moment it is: only to say what is expired by now.

    Raises:
        StorageError: the file cannot be read.
    """
    findings: list[Finding] = []
    try:
        with open_pack(path) as pack:
            findings.append(
                Finding("container", True, "", f"{len(pack.names)} files, every byte accounted for")
            )
            return _verify(pack, root, now, findings)
    except PackDamageError as error:
        step: Step = "container" if not findings else "files"
        findings.append(Finding(step, False, error.where, error.problem))
        return Verdict(tuple(findings), (), None)


def _verify(pack: Pack, root: bytes, now: datetime, findings: list[Finding]) -> Verdict:
    try:
        claim = _claim(pack)
    except (DocumentError, TrustError) as error:
        findings.append(Finding("files", False, STATEMENT, error.message))
        return Verdict(tuple(findings), (), None)
    reading = _Reading(pack, root, now, claim)
    steps: tuple[tuple[Step, Callable[[_Reading], str]], ...] = (
        ("files", lambda reading: check_files(reading.pack, reading.claim.files)),
        ("repository", _repository),
        ("board", _board),
        ("order", _order),
        ("statement", _statement),
        ("ledger", _ledger),
    )
    for step, check in steps:
        try:
            findings.append(Finding(step, True, "", check(reading)))
        except PackDamageError as error:
            findings.append(Finding(step, False, error.where, error.problem))
            return Verdict(tuple(findings), tuple(reading.notes), None)
    return Verdict(tuple(findings), tuple(reading.notes), claim)


def _claim(pack: Pack) -> RunFact:
    """Read what the station claims; whether it said so is step 6."""
    return RunStatement.decode(
        unsafe_payload(pack.read(STATEMENT), PAYLOAD_TYPE, max_bytes=MAX_STATEMENT_ENVELOPE_BYTES)
    ).predicate


def _repository(reading: _Reading) -> str:
    claim = reading.claim.repository
    files = {
        name.removeprefix(TRUST): reading.pack.read(name)
        for name in reading.pack.names
        if name.startswith(TRUST) and not name.startswith(TARGETS)
    }
    try:
        found = verify_repository(reading.root, files, claim.admitted_at)
    except TrustError as error:
        raise PackDamageError(TRUST, error.message) from error
    said = {
        "root": claim.root_version,
        "timestamp": claim.timestamp_version,
        "snapshot": claim.snapshot_version,
        "targets": claim.targets_version,
    }
    if said != dict(found.versions):
        raise PackDamageError(TRUST, "is of other versions than the station's statement names")
    stray, unknown = found.roots_of(files)
    if stray is not None:
        raise PackDamageError(TRUST + stray, "is none of the metadata that verifies from your root")
    if unknown:
        reading.notes.append(f"Older than your root, and not checked: {', '.join(unknown)}.")
    if reading.now >= found.expires:
        reading.notes.append(
            f"The state of the repository was valid then, until {found.expires:%Y-%m-%d %H:%M} UTC; it is expired by now."
        )
    reading.repository = found
    return f"verifies from your root, as of {claim.admitted_at:%Y-%m-%d %H:%M} UTC: " + ", ".join(
        f"{role} {version}" for role, version in said.items()
    )


def _board(reading: _Reading) -> str:
    repository = reading.repository
    if repository is None:
        raise PackDamageError(TRUST, "was not verified")
    _as_listed(reading, repository)
    claim = reading.claim.policy
    policy = _permitted_policy(reading, repository.charter)
    if policy.digest != claim.digest:
        raise PackDamageError(STATEMENT, "names other bytes of the policy")
    if reading.pack.read(POLICY) != _signed_file(policy):
        raise PackDamageError(POLICY, "is not what the members signed")
    register = reading.target(REGISTER_TARGET)
    if register is None:
        raise PackDamageError(TARGETS + REGISTER_TARGET, "is missing")
    verified = verify_register(register, repository.charter)
    if isinstance(verified, Refused):
        raise PackDamageError(TARGETS + REGISTER_TARGET, verified.reasons[0].detail)
    _not_withdrawn(reading, policy)
    opinions = _opinions(reading, policy, repository.charter)
    reading.policy, reading.register = policy, verified.value
    if reading.now >= policy.policy.valid_until:
        reading.notes.append(f"The policy was valid then, until {policy.policy.valid_until:%Y-%m-%d}.")
    names = [member.name for member in repository.charter.members if member.key in policy.signers]
    return (
        f"policy {claim.id}, version {claim.version}, signed by {', '.join(names) or 'a development key'}"
        + (f"; {opinions} members said more" if opinions else "")
    )


def _as_listed(reading: _Reading, repository: RepositoryThen) -> None:
    """Every document of the board is one that was listed then, and none that belongs to the run is left out."""
    packed = {name.removeprefix(TARGETS) for name in reading.pack.names if name.startswith(TARGETS)}
    for path in sorted(packed):
        data = reading.pack.read(TARGETS + path)
        if not repository.holds(path, data, digest_of(data)):
            raise PackDamageError(TARGETS + path, "is not what the repository listed then")
    claim = reading.claim.policy
    for path in sorted(repository.targets.keys() - packed):
        if belongs_to_run(path, (claim.id, claim.version)):
            raise PackDamageError(TARGETS + path, "was listed then, and is missing")
    listed = [key for path in repository.targets if (key := parse_policy_target(path))]
    if any(policy_id == claim.id and version > claim.version for policy_id, version in listed):
        raise PackDamageError(
            "trust/targets.json", "lists a later version, which had replaced the run's policy"
        )


def _not_withdrawn(reading: _Reading, policy: PolicyInForce) -> None:
    data = reading.target(REVOKED_TARGET)
    if data is None:
        return
    try:
        withdrawn = load_json(RevocationList, data, what=REVOKED_TARGET)
    except DocumentError as error:
        raise PackDamageError(TARGETS + REVOKED_TARGET, error.message) from error
    claim = reading.claim
    if any(
        (entry.policy_id, entry.version) == (claim.policy.id, claim.policy.version)
        for entry in withdrawn.revoked
    ):
        raise PackDamageError(TARGETS + REVOKED_TARGET, "names the run's policy: it was withdrawn already")
    if any(entry.key == policy.policy.requester.key for entry in withdrawn.requesters):
        raise PackDamageError(TARGETS + REVOKED_TARGET, "names the requester: withdrawn already")
    if any(entry.name == claim.station for entry in withdrawn.stations):
        raise PackDamageError(TARGETS + REVOKED_TARGET, "names the station: withdrawn already")
    reading.withdrawn = frozenset(entry.name for entry in withdrawn.stations)


def _permitted_policy(reading: _Reading, charter: Charter) -> PolicyInForce:
    claim = reading.claim.policy
    path = policy_target(claim.id, claim.version)
    envelope = reading.target(path)
    if envelope is None:
        raise PackDamageError(TARGETS + path, "is missing")
    found = verify_policy(envelope, claim.id, claim.version, charter)
    if isinstance(found, Refused):
        raise PackDamageError(TARGETS + path, f"{found.code}: {found.reasons[0].detail}")
    return found.value


def _signed_file(policy: PolicyInForce) -> bytes:
    """Return the file that the members of a policy in force signed."""
    return unsafe_payload(policy.envelope, POLICY_PAYLOAD_TYPE)


def _opinions(reading: _Reading, policy: PolicyInForce, charter: Charter) -> int:
    """Check what members said besides, and the table of purposes, where they are there."""
    about = f"{TARGETS}opinions/"
    opinions = [name for name in reading.pack.names if name.startswith(about)]
    for name in opinions:
        key = name.rpartition("/")[2].removesuffix(".dsse.json")
        try:
            verify_opinion(reading.pack.read(name), key, policy, charter)
        except TrustError as error:
            raise PackDamageError(name, error.message) from error
    if (purposes := reading.target(PURPOSES_TARGET)) is not None:
        verified = verify_purposes(purposes, charter)
        if isinstance(verified, Refused):
            raise PackDamageError(TARGETS + PURPOSES_TARGET, verified.reasons[0].detail)
        reading.purposes = verified.value
    return len(opinions)


def _order(reading: _Reading) -> str:
    if reading.policy is None or reading.register is None:
        raise PackDamageError(POLICY, "was not verified")
    policy, claim = reading.policy.policy, reading.claim
    envelope = reading.pack.read(ORDER)
    verified = verified_order(envelope, policy)
    if isinstance(verified, Refused):
        raise PackDamageError(ORDER, f"{verified.code}: {verified.reasons[0].detail}")
    order = verified.value
    digest = digest_of(unsafe_payload(envelope, ORDER_PAYLOAD_TYPE))
    train = reading.pack.read(TRAIN)
    if digest_of(train) != policy.manifest_digest:
        raise PackDamageError(TRAIN, "is not the train that the policy names")
    try:
        manifest = load_yaml(TrainManifest, train, what=TRAIN)
    except DocumentError as error:
        raise PackDamageError(TRAIN, error.message) from error
    reasons = order_reasons(order, policy, reading.policy.digest, claim.repository.admitted_at)
    reasons += manifest_reasons(order, manifest, policy)
    if reasons:
        raise PackDamageError(ORDER, f"{reasons[0].code}: {reasons[0].detail}")
    _same_order(claim, order, digest)
    published = PublishedThen(reading.register, reading.purposes, reading.withdrawn)
    check_admission(order, policy, claim.station, published, claim.repository.admitted_at)
    return f"{digest[:19]}..., signed by the requester of the policy and within it"


def _same_order(claim: RunFact, order: RunOrder, digest: str) -> None:
    told = (
        claim.order.digest, claim.order.order_id, claim.policy.id, claim.policy.version, claim.manifest_digest,
        claim.image_config_digest, claim.stages, claim.rounds,
    )  # fmt: skip
    is_ = (
        digest, order.order_id, order.policy_id, order.policy_version, order.manifest_digest,
        order.image_config_digest, order.stages, order.rounds,
    )  # fmt: skip
    if told != is_:
        raise PackDamageError(STATEMENT, "tells of another order than the one in the pack")
    if claim.station not in order.stations:
        raise PackDamageError(ORDER, "does not name the station")


def _statement(reading: _Reading) -> str:
    if reading.register is None or reading.policy is None:
        raise PackDamageError(TARGETS + REGISTER_TARGET, "was not verified")
    station = reading.register.find(reading.claim.station)
    if station is None:
        raise PackDamageError(STATEMENT, "is of a station that the register does not name")
    data = reading.pack.read(STATEMENT)
    try:
        said = verify_envelope(
            data, PAYLOAD_TYPE, [station.identity_key], 1, max_bytes=MAX_STATEMENT_ENVELOPE_BYTES
        )
    except TrustError as error:
        raise PackDamageError(STATEMENT, "is not signed with the station's identity key") from error
    if RunStatement.decode(said.payload).encode() != said.payload:
        raise PackDamageError(STATEMENT, "is not written in the one form there is")
    _within_terms(reading, station)
    return f"signed by {station.organisation} ({station.name})"


def _within_terms(reading: _Reading, station: RegisteredStation) -> None:
    if reading.policy is None:
        raise PackDamageError(POLICY, "was not verified")
    policy, claim = reading.policy.policy, reading.claim
    if len(claim.releases) > min(policy.runs.releases, claim.rounds * len(claim.stages)):
        raise PackDamageError(STATEMENT, "tells of more releases than order and policy grant")
    for release in claim.releases:
        which = f"the release of round {release.round}, stage {release.stage},"
        if release.stage not in claim.stages or release.round > claim.rounds:
            raise PackDamageError(STATEMENT, f"{which} is none that the order asks for")
        if release.recorded < claim.repository.admitted_at:
            raise PackDamageError(STATEMENT, f"{which} was made before the run was admitted")
        if not policy.valid_from <= release.recorded < policy.valid_until:
            raise PackDamageError(STATEMENT, f"{which} was made outside the policy's validity")
        if release.recorded.astimezone(UTC).date() > station.agreement.expires:
            raise PackDamageError(STATEMENT, f"{which} was made after the hospital's agreement ended")


def _ledger(reading: _Reading) -> str:
    try:
        return check_ledger(reading.pack, reading.claim)
    except PackDamageError as error:
        raise PackDamageError(error.where, error.problem) from error
    except DocumentError as error:
        raise PackDamageError(LEDGER, error.message) from error
