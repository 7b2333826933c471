"""Reads what a simulation asks about: policy, train, order, and what the board published. Nothing counts unverified."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from policies.board.documents.documents_in import read_file, read_train
from policies.board.documents.listed import policy_payload
from policies.board.simulation.assumptions import Question
from policies.charter import REGISTER_TARGET, Charter, StationRegister
from policies.documents import Moment, digest_of, load_json, load_yaml
from policies.errors import NotFoundError, RefusedError, TrustError, UsageError
from policies.manifest import TrainManifest
from policies.order import RunOrder
from policies.policy import Policy
from policies.purposes import PURPOSES_TARGET, PurposeTable
from policies.refusal_texts import text_of
from policies.refusals import Permitted, Reason, RefusalCode, Refused
from policies.rules.order_rules import verified_order
from policies.signing import unsafe_payload
from policies.station_profile import MAX_PROFILE_BYTES, PAYLOAD_TYPE, StationProfile, open_profile
from policies.trust.repository import BoardRepository
from policies.trust.revocations import RevocationList
from policies.trust.verification import parse_policy_target, verify_purposes, verify_register


@dataclass(frozen=True, slots=True)
class Published:
    """What a board's repository lists, as far as the board's members signed it.

    Attributes:
        versions: the newest listed version of each policy.
    """

    register: StationRegister
    purposes: PurposeTable | None
    revocations: RevocationList
    versions: Mapping[str, int]

    @property
    def revoked_stations(self) -> frozenset[str]:
        """The stations that take part in nothing any more."""
        return frozenset(station.name for station in self.revocations.stations)

    def withdrawn(self, policy: Policy) -> tuple[Reason, ...]:
        """Return why a policy counts no more, as stations judge it."""
        reasons = [
            Reason(RefusalCode.POLICY_REVOKED, entry.reason)
            for entry in self.revocations.revoked
            if (entry.policy_id, entry.version) == (policy.id, policy.version)
        ]
        if policy.version < (latest := self.versions.get(policy.id, 0)):
            reasons.append(Reason(RefusalCode.POLICY_REVOKED, f"version {latest} replaces it"))
        reasons += [
            Reason(RefusalCode.REQUESTER_REVOKED, entry.reason)
            for entry in self.revocations.requesters
            if entry.key == policy.requester.key
        ]
        return tuple(reasons)


def published(repository: Path) -> Published:
    """Read the register, the table of purposes, and what was withdrawn or replaced.

    Raises:
        NotFoundError: the board has published no register.
        TrustError: the register or the table is not signed as the charter demands.
    """
    board = BoardRepository(repository)
    listed, charter = board.listed(), board.root.charter()
    if REGISTER_TARGET not in listed:
        raise NotFoundError(
            "the repository has no register of stations",
            hint="Publish one (`pht-board register`), or give each station's key with --identity.",
        )
    versions: dict[str, int] = {}
    for policy_id, version in filter(None, map(parse_policy_target, listed)):
        versions[policy_id] = max(version, versions.get(policy_id, 0))
    return Published(
        _register(listed[REGISTER_TARGET], charter),
        _purposes(listed.get(PURPOSES_TARGET), charter),
        board.revocations(),
        versions,
    )


def _register(data: bytes, charter: Charter) -> StationRegister:
    result = verify_register(data, charter)
    if isinstance(result, Permitted):
        return result.value
    raise TrustError(f"{result.code}: {result.reasons[0].detail}")


def _purposes(data: bytes | None, charter: Charter) -> PurposeTable | None:
    if data is None:
        return None
    result = verify_purposes(data, charter)
    if isinstance(result, Permitted):
        return result.value
    raise TrustError(f"{result.code}: {result.reasons[0].detail}")


def question_of(
    policy: str, train: Path | None, order: Path | None, repository: Path | None, now: datetime
) -> Question:
    """Read what is asked.

    Args:
        policy: a policy file, signed or not yet, or ``id@version`` as the repository lists it.
        train: ``train.yaml``, or a bundle.
        order: a signed run order.
        repository: the board's.
        now: the moment that is asked about.

    Raises:
        RefusedError: the order is not one of this policy's requester.
        UsageError: the train is another than the policy names.
    """
    data = _policy_bytes(policy, repository)
    document = load_yaml(Policy, data, what="policy")
    found = None if repository is None else published(repository)
    return Question(
        policy=document,
        policy_digest=digest_of(data),
        manifest=None if train is None else _manifest(train, document),
        order=None if order is None else _order(read_file(order), document),
        register=None if found is None else found.register,
        purposes=None if found is None else found.purposes,
        revoked_stations=frozenset() if found is None else found.revoked_stations,
        now=now,
        withdrawn=None if found is None else found.withdrawn(document),
    )


def moment_of(text: str) -> datetime:
    """Read a moment that a command line names.

    Raises:
        UsageError: it is none.
    """
    try:
        return TypeAdapter(Moment).validate_python(text)
    except ValidationError as error:
        raise UsageError(f"--at {text}: write a moment in UTC as 2026-01-31T12:00:00Z") from error


def _policy_bytes(name: str, repository: Path | None) -> bytes:
    if Path(name).exists() or "@" not in name:
        return read_file(Path(name))
    if repository is None:
        raise UsageError(f"{name}: a policy named by its id needs --repository")
    return policy_payload(repository, name)


def _manifest(path: Path, policy: Policy) -> TrainManifest:
    train = read_train(path)
    if train.digest != policy.manifest_digest:
        raise UsageError(
            f"{path.name}: this is another train than the policy names",
            hint="Give the train.yaml or the bundle that was packed for this policy.",
        )
    return train.manifest


def _order(envelope: bytes, policy: Policy) -> RunOrder:
    result = verified_order(envelope, policy)
    if isinstance(result, Refused):
        text = text_of(result.code)
        raise RefusedError(result.code, text.means, hint=text.do)
    return result.value


def read_profiles(
    paths: Sequence[Path], keys: Sequence[str], register: StationRegister | None
) -> tuple[StationProfile, ...]:
    """Read signed profiles.

    Args:
        paths: files as ``pht-station profile export`` writes them.
        keys: identity keys, hex, that were given by hand.
        register: the board's: it gives the key of each station that it names, and then no other key counts.

    Raises:
        TrustError: a profile is signed by another key, or nobody knows which key is its station's.
        UsageError: two are of the same station.
    """
    profiles = tuple(_profile(path, keys, register) for path in paths)
    names = [profile.station for profile in profiles]
    if len(set(names)) != len(names):
        raise UsageError("two profiles are of the same station", hint="Give the newest one of each station.")
    return profiles


def _profile(path: Path, keys: Sequence[str], register: StationRegister | None) -> StationProfile:
    envelope = read_file(path)
    # Read before it is verified only to learn whose key to ask for.
    claim = load_json(
        StationProfile, unsafe_payload(envelope, PAYLOAD_TYPE), what=path.name, max_bytes=MAX_PROFILE_BYTES
    )
    entry = None if register is None else register.find(claim.station)
    for key in [entry.identity_key] if entry is not None else keys:
        try:
            return open_profile(envelope, key)
        except TrustError:
            continue
    raise TrustError(
        f"{path.name}: not signed by the key of {claim.station}",
        hint="Give the board's --repository, whose register names the key, or the station's key with --identity.",
    )
