"""Makes a station's home: users, folders, keys, settings, the pinned root, and the card for the board.

Runs once, as the operator. Does not start anything. A home that exists is never overwritten; a step that fails
leaves nothing behind but the users.
"""

import grp
import os
import pwd
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from policies.documents import canonical_json
from policies.errors import SettingsError, StateError, StorageError, UnavailableError
from policies.policy import ConsentMode, PurposeCode, RequesterClass
from policies.rules.admission import Marking
from policies.signing import generate_key
from policies.trust.client import PolicyClient
from policies.wire.http import openssh_public_key
from station.cohorts.keys import CohortKey
from station.intake.installation import init_intake
from station.layout import GROUP, StationPaths
from station.settings import (
    CeilingSettings,
    CollectionSettings,
    HospitalSettings,
    OrchestratorSettings,
    ServiceSettings,
    StationSettings,
)
from station.settings.text import render
from station.supervisor import Account, account, require_reachable

INTAKE_USER, COMPUTE_USER, LAUNCHER_USER = "pht-intake", "pht-compute", "pht-launcher"
USERS = (INTAKE_USER, COMPUTE_USER, LAUNCHER_USER)

CA_FILE = "ca.pem"

_FOLDERS = {
    "run": 0o700,
    "logs": 0o700,
    "compute": 0o750,
    "compute/layers": 0o750,
    "compute/cohorts": 0o750,
    "compute/volumes": 0o700,
    "compute/control": 0o750,
    "compute/keys": 0o700,
    "compute/trust": 0o700,
    "compute/releases": 0o700,
    "compute/reviews": 0o700,
    "compute/work": 0o700,
    "compute/agent": 0o700,
    "compute/train-logs": 0o700,
}


@dataclass(frozen=True, slots=True)
class StationCard:
    """What the board's secretary needs to register this station."""

    name: str
    identity_key: str
    node_key: str


@dataclass(frozen=True, slots=True)
class Choices:
    """What `pht-station init` asks; everything else has a careful default that the hospital edits in station.toml."""

    name: str
    orchestrator: str
    collections: tuple[str, ...]
    marking: Marking
    approval: Literal["always", "training", "never"]
    separated: bool


def first_settings(choices: Choices) -> StationSettings:
    """Return the settings a new station starts with: every collection offered to non-profit research in the country.

    Raises:
        SettingsError: a choice is not one.
    """
    url = choices.orchestrator.rstrip("/")
    try:
        return StationSettings(
            name=choices.name,
            orchestrator=OrchestratorSettings(url=url, mirror_url=f"{url}/api/v1/mirror", ca_file=CA_FILE),
            services=ServiceSettings(separation="users" if choices.separated else "none"),
            ceilings=CeilingSettings(memory_mib=4096, cpus=2.0, runs_at_once=2),
            hospital=HospitalSettings(operator_approval=choices.approval, consent_max_age_days=90),
            collections=tuple(_offer(name, choices.marking) for name in choices.collections),
        )
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise SettingsError(
            f"{where}: {problem['msg']}",
            hint="An address is https://host:port, a name has small letters, digits and dashes; see `pht-station init --help`.",
        ) from error


def _offer(name: str, marking: Marking) -> CollectionSettings:
    return CollectionSettings(
        name=name,
        consent_mode=ConsentMode.OPT_IN,
        legal_ground="consent of the patient (GDPR art. 9(2)(a))",
        marking=marking,
        requester_classes=(RequesterClass.PARTICIPANT, RequesterClass.NON_PROFIT),
        purposes=tuple(PurposeCode),
        countries=("NL",),
    )


def make_users() -> None:
    """Make the services' users and their group where they are missing; needs root.

    Raises:
        UnavailableError: the host's tools refuse.
    """
    try:
        grp.getgrnam(GROUP)
    except KeyError:
        _system("groupadd", "--system", GROUP)
    for name in USERS:
        try:
            pwd.getpwnam(name)
        except KeyError:
            _system(
                "useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell",
                "/usr/sbin/nologin", "--gid", GROUP, name,
            )  # fmt: skip


def _system(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(
            f"`{command[0]}` failed",
            hint="Make the users by hand, see station/README.md, or use --separation none.",
        ) from error


def install(home: Path, settings: StationSettings, root: bytes, ca_pem: bytes) -> StationCard:
    """Make a station's home.

    Args:
        home: must not exist, or be empty.
        settings: the hospital's settings and rules; `services.separation` says whether each service has its own user
            (which needs root).
        root: the board's TUF root metadata, pinned here.
        ca_pem: the authority to trust for the orchestrator's address.

    Raises:
        StateError: the home is in use.
        SettingsError: the services' users cannot reach the home.
        StorageError: it cannot be written; nothing is left.
    """
    try:
        if home.exists() and (not home.is_dir() or any(home.iterdir())):
            raise StateError(
                f"{home} is not empty", hint="Give a new folder; a station's home is never overwritten."
            )
        if settings.services.separation == "users":
            make_users()
        home.mkdir(parents=True, exist_ok=True)
        try:
            return _fill(StationPaths(home.resolve()), settings, root, ca_pem)
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
    except OSError as error:
        raise StorageError(
            f"{home.name} cannot be written ({error.strerror})",
            hint="Look at the free space and at who may write there.",
        ) from error


def _fill(paths: StationPaths, settings: StationSettings, root: bytes, ca_pem: bytes) -> StationCard:
    separated = settings.services.separation == "users"
    users = {user: account(user) for user in USERS} if separated else {}
    paths.home.chmod(0o711)
    if separated:
        require_reachable(paths.home, users[COMPUTE_USER])
    for folder, mode in _FOLDERS.items():
        place = paths.home / folder
        place.mkdir()
        # Whatever the umask of whoever installs.
        place.chmod(mode)
    _write(paths.settings, render(settings).encode(), 0o644)
    _write(paths.home / CA_FILE, ca_pem, 0o644)
    _write(paths.api_token, secrets.token_hex(32).encode(), 0o600)
    init_intake(paths.home)
    card = _make_keys(paths, settings.name)
    PolicyClient.pin(paths.trust, root)
    paths.trust.chmod(0o700)
    # Pinned: compute never asks intake's folder which key to believe.
    _write(paths.handover_key, (paths.handover / "handover.pub").read_bytes(), 0o644)
    _write(
        paths.card,
        canonical_json({"name": card.name, "identity_key": card.identity_key, "node_key": card.node_key}),
        0o644,
    )
    if separated:
        _give(paths, users)
    return card


def _make_keys(paths: StationPaths, name: str) -> StationCard:
    identity = generate_key(paths.identity_key)
    CohortKey.generate(paths.cohort_key)
    key = ec.generate_private_key(ec.SECP384R1())
    _write(
        paths.node_key,
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        0o600,
    )
    return StationCard(name, identity, openssh_public_key(key.public_key()).decode())


def _give(paths: StationPaths, users: dict[str, Account]) -> None:
    group = grp.getgrnam(GROUP).gr_gid
    _own(paths.compute, users[COMPUTE_USER].uid, group)
    _own(paths.home / "intake", users[INTAKE_USER].uid, group)
    _own(paths.handover, users[INTAKE_USER].uid, group)
    os.chown(paths.api_token, users[COMPUTE_USER].uid, group)
    intake_token = paths.run / "intake.token"
    os.chown(intake_token, users[INTAKE_USER].uid, group)
    # Each service makes its own socket here; the sticky bit keeps one from removing another's.
    os.chown(paths.run, 0, group)
    paths.run.chmod(0o1770)
    # The group is handed down to every file that intake adds: compute reads them, and cannot write.
    for folder in (paths.handover, *(path for path in paths.handover.rglob("*") if path.is_dir())):
        folder.chmod(0o2750)


def _own(folder: Path, uid: int, gid: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, gid, follow_symlinks=False)


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(
            f"{path.name}: {error.strerror}", hint="Look at the free space and the folder's owner."
        ) from error
