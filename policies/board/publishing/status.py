"""What a board's repository holds: what is in force, what waits, and what lapses when. Reads; decides nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from tuf.api.metadata import Snapshot

from policies.board.documents.wording import opinion_in_words, withdrawals_in_words
from policies.board.signing.signing_desk import members_who_signed
from policies.charter import POLICY_PAYLOAD_TYPE, REGISTER_TARGET, Charter, StationRegister
from policies.documents import load_yaml
from policies.errors import PhtError, TrustError
from policies.policy import Policy
from policies.purposes import PURPOSES_TARGET, PurposeTable
from policies.refusals import Permitted, RefusalCode
from policies.rules.board_rules import purpose_reasons
from policies.signing import unsafe_payload
from policies.trust.metadata import versions
from policies.trust.repository import BoardRepository
from policies.trust.revocations import RevocationList
from policies.trust.verification import (
    PolicyInForce,
    parse_opinion_target,
    parse_policy_target,
    verify_opinion,
    verify_policy,
    verify_purposes,
    verify_register,
)

_SOON = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """One TUF role: its version, and how long it still counts."""

    role: str
    version: int
    expires: datetime
    left: str


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """One listed policy.

    Attributes:
        policy_id: its id.
        version: its version.
        title: what it says it is.
        signers: the members whose signatures hold, by name.
        refusal: why it does not count, or None where it does.
        opinions: conditions and dissents of members, in words.
    """

    policy_id: str
    version: int
    title: str
    signers: tuple[str, ...]
    refusal: RefusalCode | None
    opinions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """The repository at a glance."""

    board: str
    title: str
    roles: tuple[RoleStatus, ...]
    policies: tuple[PolicyStatus, ...]
    register_version: int
    stations: tuple[str, ...]
    purposes_version: int
    revoked: tuple[str, ...]
    staged: tuple[str, ...]
    warnings: tuple[str, ...]


def status_of(folder: Path, now: datetime) -> Status:
    """Look at a repository.

    Raises:
        TrustError: its root is not in force yet.
    """
    repository = BoardRepository(folder)
    charter = repository.root.charter()
    listed = repository.listed()
    register = _register(listed.get(REGISTER_TARGET), charter)
    purposes = purposes_of(repository)
    known = _Known(charter, purposes, repository.revocations(), listed)
    roles = _roles(repository, now)
    policies = tuple(
        _policy(key, data, known, now)
        for path, data in sorted(listed.items())
        if (key := parse_policy_target(path))
    )
    staged = tuple(repository.staged())
    return Status(
        board=charter.board,
        title=charter.title,
        roles=roles,
        policies=policies,
        register_version=register.version if register else 0,
        stations=tuple(station.name for station in register.stations) if register else (),
        purposes_version=purposes.version if purposes else 0,
        revoked=withdrawals_in_words(known.revocations),
        staged=staged,
        warnings=tuple(_warnings(repository, roles, staged, now)),
    )


def _roles(repository: BoardRepository, now: datetime) -> tuple[RoleStatus, ...]:
    found = [repository.root.in_force()]
    signed = [(found[0].type, found[0].version, found[0].expires)]
    if versions(repository.metadata, Snapshot.type):
        snapshot, targets = repository.snapshot(), repository.targets_metadata()
        signed += [(role.type, role.version, role.expires) for role in (targets, snapshot)]
    timestamp = repository.timestamp()
    if timestamp is not None:
        signed.append((timestamp.type, timestamp.version, timestamp.expires))
    return tuple(
        RoleStatus(name, version, expires, _left(expires - now)) for name, version, expires in signed
    )


def _left(left: timedelta) -> str:
    if left <= timedelta(0):
        return "expired"
    if left.days:
        return f"{left.days} days"
    minutes = int(left.total_seconds() // 60)
    return f"{minutes // 60} h {minutes % 60} min"


@dataclass(frozen=True, slots=True)
class _Known:
    """What a policy's standing depends on besides itself."""

    charter: Charter
    purposes: PurposeTable | None
    revocations: RevocationList
    listed: Mapping[str, bytes]


def _policy(key: tuple[str, int], data: bytes, known: _Known, now: datetime) -> PolicyStatus:
    try:
        policy = load_yaml(Policy, unsafe_payload(data, POLICY_PAYLOAD_TYPE), what=key[0])
    except PhtError:
        return PolicyStatus(*key, "", (), RefusalCode.POLICY_INVALID)
    result = verify_policy(data, *key, known.charter)
    refusal = _refusal(policy, known, now) if isinstance(result, Permitted) else result.code
    signers = tuple(member.name for member in members_who_signed(data, POLICY_PAYLOAD_TYPE, known.charter))
    opinions = _opinions(result.value, known) if isinstance(result, Permitted) else ()
    return PolicyStatus(*key, policy.title, signers, refusal, opinions)


def _refusal(policy: Policy, known: _Known, now: datetime) -> RefusalCode | None:
    """Return why a policy that its members signed permits nothing now, or None."""
    if any(entry.key == policy.requester.key for entry in known.revocations.requesters):
        return RefusalCode.REQUESTER_REVOKED
    if now >= policy.valid_until:
        return RefusalCode.POLICY_EXPIRED
    if now < policy.valid_from:
        return RefusalCode.POLICY_NOT_YET_VALID
    reasons = purpose_reasons(policy, known.purposes)
    return reasons[0].code if reasons else None


def _opinions(policy: PolicyInForce, known: _Known) -> tuple[str, ...]:
    found = []
    for path, data in sorted(known.listed.items()):
        about = parse_opinion_target(path)
        if about is None or about[:2] != (policy.policy.id, policy.policy.version):
            continue
        try:
            found.append(opinion_in_words(verify_opinion(data, about[2], policy, known.charter)))
        except TrustError:
            continue
    return tuple(found)


def _register(data: bytes | None, charter: Charter) -> StationRegister | None:
    result = None if data is None else verify_register(data, charter)
    return result.value if isinstance(result, Permitted) else None


def purposes_of(repository: BoardRepository) -> PurposeTable | None:
    """Return the published table of purposes, or None where none binds.

    Raises:
        TrustError: the root is not in force yet.
    """
    data = repository.listed().get(PURPOSES_TARGET)
    result = None if data is None else verify_purposes(data, repository.root.charter())
    return result.value if isinstance(result, Permitted) else None


def _warnings(
    repository: BoardRepository, roles: tuple[RoleStatus, ...], staged: tuple[str, ...], now: datetime
) -> list[str]:
    found = []
    draft = repository.root.drafted()
    if draft is not None:
        found.append(f"Root {draft.version} waits for signatures: {draft.signed} of {draft.needed}.")
    if staged:
        found.append(f"{len(staged)} staged, not published: {', '.join(staged)}.")
    names = {role.role for role in roles}
    if "timestamp" not in names:
        found.append("No timestamp yet: no station can use this repository until the witness signs.")
    for role in roles:
        if role.role == "timestamp":
            if role.expires <= now:
                found.append("The timestamp has expired: is the witness running?")
        elif role.expires - now < _SOON:
            found.append(f"{role.role} expires on {role.expires:%Y-%m-%d}: renew it in time.")
    return found
