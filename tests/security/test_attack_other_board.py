"""A policy that another board signed for itself, by members who sit on both; or the whole repository of another board."""

import shutil
from datetime import datetime
from pathlib import Path

import pytest
from attack_kit import LATER, POLICY, Siege, besiege, listed_by_secretary, verdict
from board_kit import NOW, BoardKit, permitted

from policies.charter import REGISTER_PAYLOAD_TYPE, REGISTER_TARGET, policy_target
from policies.refusals import RefusalCode
from policies.trust.client import PolicyClient

CODE = RefusalCode.POLICY_OTHER_BOARD


def policy(board: BoardKit) -> datetime:
    envelope = board.signed(board.policy(changes={"board": "heart-board"}), "alice", "bob", "carol")
    return listed_by_secretary(board, {policy_target(*POLICY): envelope})


ATTACKS = {"policy": policy}


def test_a_policy_of_another_board_does_not_count(tmp_path: Path) -> None:
    assert Siege.lay(tmp_path).refused(policy) is CODE


def register(board: BoardKit) -> datetime:
    words = board.repository.listed()[REGISTER_TARGET]
    from policies.signing import unsafe_payload

    payload = unsafe_payload(words, REGISTER_PAYLOAD_TYPE).replace(b"thorax-board", b"heart-board")
    payload = payload.replace(b"version: 2", b"version: 3")
    envelope = board.signed(payload, "alice", "carol", payload_type=REGISTER_PAYLOAD_TYPE)
    return listed_by_secretary(board, {REGISTER_TARGET: envelope})


def whole_repository(board: BoardKit) -> datetime:
    """Another board's mirror in place of ours, newer in every number."""
    other = BoardKit.found(board.folder / "heart")
    other.publish(other.signed(other.policy()))
    besiege(other)
    for _ in range(3):
        other.repository.publish(other.keys["secretary"], now=LATER, renew=True)
        other.witness.sign_once(LATER)
    shutil.rmtree(board.repository.folder)
    shutil.copytree(other.repository.folder, board.repository.folder)
    return LATER


@pytest.mark.parametrize("attack", [register, whole_repository])
def test_nor_does_its_register_or_its_repository(tmp_path: Path, attack: object) -> None:
    assert Siege.lay(tmp_path).refused(attack) is RefusalCode.TRUST_UNVERIFIED  # type: ignore[arg-type]


def test_nothing_is_believed_before_a_root_is_pinned(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    (tmp_path / "unpinned").mkdir()
    client = PolicyClient(tmp_path / "unpinned", siege.board.repository.folder)
    assert verdict(client, NOW) is RefusalCode.TRUST_UNVERIFIED
    permitted(siege.client.refresh(NOW))
