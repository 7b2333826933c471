"""The mirror changes bytes in place: of every metadata file and every target, one at a time, cut off, or with more behind."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from attack_kit import LATER, POLICY, Siege
from board_kit import NOW, BoardKit, permitted, refusal

from policies.charter import policy_target
from policies.refusals import RefusalCode, Refused
from policies.trust.listing import hashed

CODE = RefusalCode.TRUST_CHANGED
FILES = ("timestamp", "2.snapshot", "2.targets")
TARGETS = ("stations", "purposes", "policy")


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flipped,
    "shorter": lambda data: data[:-1],
    "longer": lambda data: data + b" x",
    "empty": lambda _data: b"",
    "other": lambda _data: b'{"signed": {}, "signatures": []}',
}


def place(board: BoardKit, name: str) -> Path:
    if name not in TARGETS:
        return board.repository.metadata / f"{name}.json"
    path = policy_target(*POLICY) if name == "policy" else f"{name}.dsse.json"
    return board.repository.targets / hashed(path, board.repository.targets_metadata().targets[path])


def _change(board: BoardKit, name: str, how: str = "flipped") -> datetime:
    path = place(board, name)
    path.write_bytes(CHANGES[how](path.read_bytes()))
    return LATER


def _published_anew(board: BoardKit) -> None:
    """A station that has a file does not fetch it again: give it new ones."""
    board.repository.set_register(board.signed_register(3))
    board.repository.set_purposes(board.signed_purposes(3))
    board.publish(now=LATER)


def timestamp(board: BoardKit) -> datetime:
    return _change(board, "timestamp")


def snapshot(board: BoardKit) -> datetime:
    _published_anew(board)
    return _change(board, "3.snapshot")


def targets(board: BoardKit) -> datetime:
    _published_anew(board)
    return _change(board, "3.targets")


def register(board: BoardKit) -> datetime:
    _published_anew(board)
    return _change(board, "stations")


def purposes(board: BoardKit) -> datetime:
    _published_anew(board)
    return _change(board, "purposes")


ATTACKS = {
    "timestamp": timestamp,
    "snapshot": snapshot,
    "targets": targets,
    "register": register,
    "purposes": purposes,
}


@pytest.mark.parametrize("how", ATTACKS)
def test_a_station_that_knows_the_board_refuses(tmp_path: Path, how: str) -> None:
    assert Siege.lay(tmp_path).refused(ATTACKS[how]) is CODE


@pytest.mark.parametrize("name", [*FILES, *TARGETS])
@pytest.mark.parametrize("how", CHANGES)
def test_a_new_station_refuses(tmp_path: Path, name: str, how: str) -> None:
    siege = Siege.lay(tmp_path)
    _change(siege.board, name, how)
    assert siege.newcomer(NOW) is CODE


@pytest.mark.parametrize("how", CHANGES)
def test_a_new_root_is_taken_whole_or_not(tmp_path: Path, how: str) -> None:
    siege = Siege.lay(tmp_path)
    siege.board.repository.root.propose(siege.board.plan, now=NOW)
    for name in ("alice", "carol"):
        siege.board.repository.root.sign(siege.board.keys[name])
    siege.board.publish(now=LATER)
    _change(siege.board, "2.root", how)
    assert refusal(siege.client.refresh(LATER)) is CODE


@pytest.mark.parametrize("name", FILES)
def test_whatever_byte_is_changed_nothing_changes(tmp_path: Path, name: str) -> None:
    """Every byte of a metadata file: refused, or the file says what it said (a key's hex in capitals, say)."""
    siege = Siege.lay(tmp_path)
    path = place(siege.board, name)
    data, honest = path.read_bytes(), permitted(siege.board.client("honest").refresh(NOW))
    codes = set()
    for position in range(0, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x20]) + data[position + 1 :])
        looked = siege.board.client(f"reader{position}").refresh(NOW)
        if isinstance(looked, Refused):
            codes.add(looked.code)
        else:
            assert looked.value.envelopes == honest.envelopes
            assert looked.value.state == honest.state
    assert codes == {CODE}
