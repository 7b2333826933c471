"""Steps 3 and 4: what the board had published then, and what of it makes the run's policy binding."""

from policies.charter import POLICY_PAYLOAD_TYPE, REGISTER_TARGET, Charter, policy_target
from policies.documents import digest_of, load_json
from policies.errors import DocumentError, TrustError
from policies.evidence.archive import POLICY, STATEMENT, TARGETS, TRUST, PackDamageError
from policies.evidence.reading import Reading
from policies.evidence.repository import RepositoryThen, belongs_to_run, verify_repository
from policies.purposes import PURPOSES_TARGET
from policies.refusals import Refused
from policies.signing import unsafe_payload
from policies.trust.revocations import REVOKED_TARGET, RevocationList
from policies.trust.verification import (
    PolicyInForce,
    parse_policy_target,
    verify_opinion,
    verify_policy,
    verify_purposes,
    verify_register,
)


def check_repository(reading: Reading) -> str:
    """Step 3: the packed repository verifies from the reader's root, as of the moment of the run.

    Raises:
        PackDamageError: it does not hold.
    """
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


def check_board(reading: Reading) -> str:
    """Step 4: the policy, the register and what members said are listed there and signed.

    Raises:
        PackDamageError: it does not hold.
    """
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


def _as_listed(reading: Reading, repository: RepositoryThen) -> None:
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


def _not_withdrawn(reading: Reading, policy: PolicyInForce) -> None:
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


def _permitted_policy(reading: Reading, charter: Charter) -> PolicyInForce:
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


def _opinions(reading: Reading, policy: PolicyInForce, charter: Charter) -> int:
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
