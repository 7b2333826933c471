"""What an attacker of the policy repository holds: a mirror, or one of the board's keys; and who looks at what he made.

A board is `besieged` when a station has seen its newest state, and the attacker kept the state before. An `Attack` changes
the mirror, which is the board's own folder here, and returns the moment at which the station looks again.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from board_kit import NOW, BoardKit, permitted
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

from policies.charter import Charter
from policies.refusals import Permitted, RefusalCode, Refused
from policies.signing import Signer, generate_key, load_signer
from policies.trust.client import PolicyClient
from policies.trust.policy_set import PolicySet
from policies.trust.repository import BoardRepository

Attack = Callable[[BoardKit], datetime]
POLICY = ("cxr-classification", 1)
LATER = NOW + timedelta(minutes=10)


def besiege(board: BoardKit) -> None:
    """Make a second state of a published board; the first one is the attacker's now."""
    shutil.copytree(board.repository.folder, old_state(board))
    board.repository.publish(board.keys["secretary"], now=NOW, renew=True)
    board.witness.sign_once(NOW)


def old_state(board: BoardKit) -> Path:
    """The mirror's copy of the state before."""
    return board.folder / "old"


@dataclass
class Siege:
    """A board under attack, and a reader that has seen its newest state."""

    board: BoardKit
    client: PolicyClient

    @classmethod
    def lay(cls, folder: Path) -> "Siege":
        """A board with a policy, a register and a table of purposes in force."""
        board = BoardKit.found(folder)
        board.repository.set_register(board.signed_register(2))
        board.repository.set_purposes(board.signed_purposes(2))
        board.publish(board.signed(board.policy()))
        besiege(board)
        siege = cls(board, board.client())
        permitted(permitted(siege.client.refresh(NOW)).find(*POLICY))  # type: ignore[arg-type]
        return siege

    def refused(self, attack: Attack) -> RefusalCode:
        """What the station that knew better says; it never changes its mind about what it has verified."""
        state = self.board.folder / "station" / "verified.json"
        before = state.read_bytes()
        code = verdict(self.client, attack(self.board))
        if code not in AFTER_REFRESH:
            assert state.read_bytes() == before, "what did not verify was remembered"
        return code

    def newcomer(self, now: datetime) -> RefusalCode:
        """What a station says that never saw this repository before."""
        return verdict(self.board.client("newcomer"), now)


AFTER_REFRESH = frozenset(code for code in RefusalCode if not code.startswith("TRUST_"))
"""Codes about one policy: the repository itself verified, so its state is remembered."""


def verdict(client: PolicyClient, now: datetime) -> RefusalCode:
    """Why the policy is not in force for this reader."""
    looked = client.refresh(now)
    if isinstance(looked, Refused):
        return looked.code
    found = looked.value.find(*POLICY)
    assert isinstance(found, Refused), "the attack succeeded"
    return found.code


def seen_by(client: PolicyClient, now: datetime) -> PolicySet:
    """What a reader verified."""
    looked = client.refresh(now)
    assert isinstance(looked, Permitted), looked
    return looked.value


# -- what the holder of a key can make ------------------------------------------------------------------------------


def listed_by_secretary(board: BoardKit, changes: Mapping[str, bytes], now: datetime = LATER) -> datetime:
    """The secretary's key lists anything, past our own checks; the honest witness vouches for it."""
    board.publish_unchecked({**board.repository.listed(), **changes}, now)
    return now


def timestamp_for(
    board: BoardKit, key: Signer, snapshot: bytes, version: int, *, now: datetime = LATER
) -> None:
    """Write a timestamp that calls these bytes the snapshot of this version."""
    before = board.repository.timestamp()
    number = 1 if before is None else before.version + 1
    metadata = Metadata(
        Timestamp(
            version=number,
            expires=(now + timedelta(hours=1)).replace(microsecond=0),
            snapshot_meta=MetaFile.from_data(version, snapshot, ["sha256"]),
        )
    )
    metadata.sign(key.crypto_signer)
    (board.repository.metadata / f"{version}.snapshot.json").write_bytes(snapshot)
    metadata.to_file(str(board.repository.metadata / "timestamp.json"))


def snapshot_of(targets: bytes, targets_version: int, version: int, key: Signer, expires: datetime) -> bytes:
    """A snapshot that names these targets."""
    meta = {"targets.json": MetaFile.from_data(targets_version, targets, ["sha256"])}
    metadata = Metadata(Snapshot(version=version, expires=expires.replace(microsecond=0), meta=meta))
    metadata.sign(key.crypto_signer)
    return metadata.to_bytes()


def targets_file(repository: BoardRepository) -> tuple[int, bytes]:
    """The newest targets metadata."""
    version = repository.targets_metadata().version
    return version, (repository.metadata / f"{version}.targets.json").read_bytes()


def resigned(board: BoardKit, name: str, key: Signer) -> bytes:
    """Metadata of the mirror under another signature."""
    metadata: Metadata[Snapshot] | Metadata[Targets] | Metadata[Timestamp] = Metadata.from_bytes(
        (board.repository.metadata / name).read_bytes()
    )
    metadata.signatures.clear()
    metadata.sign(key.crypto_signer)
    return metadata.to_bytes()


# -- what the board does against a stolen key ---------------------------------------------------------------------------


def new_key(board: BoardKit, name: str) -> Signer:
    """One more key, of the test's own people."""
    generate_key(board.folder / "keys" / f"{name}.pem")
    board.keys[name] = load_signer(board.folder / "keys" / f"{name}.pem")
    return board.keys[name]


def rotate(
    board: BoardKit,
    *,
    charter: Charter | None = None,
    signers: tuple[str, ...] = ("alice", "carol"),
    **keys: str,
) -> None:
    """Put a new root in force: other keys of secretary and witness, or another charter."""
    plan = replace(board.plan, charter=charter or board.charter, **keys)
    board.repository.root.propose(plan, now=NOW)
    for name in signers:
        status = board.repository.root.sign(board.keys[name])
    assert status.valid
    board.plan, board.charter = plan, plan.charter


def with_new_carol(board: BoardKit) -> Charter:
    """The charter in which Carol has another key; the old one stays in `board.keys` as ``carol``."""
    key = new_key(board, "carol2").public_hex
    members = tuple(
        member.model_copy(update={"key": key}) if member.name == "Carol" else member
        for member in board.charter.members
    )
    return board.charter.model_copy(update={"members": members})
