"""A member's key was stolen and replaced; with the old one a policy, a register, a purpose table or a root is signed."""

from datetime import datetime
from pathlib import Path

import pytest
from attack_kit import LATER, POLICY, Siege, listed_by_secretary, rotate, with_new_carol
from board_kit import BoardKit, permitted
from tuf.api.metadata import Metadata, Root

from policies.charter import REGISTER_TARGET, policy_target
from policies.purposes import PURPOSES_TARGET
from policies.refusals import RefusalCode

CODE = RefusalCode.POLICY_SIGNER_RETIRED


def _replace_key(board: BoardKit) -> None:
    """Carol has a new key; register and table of purposes are signed anew."""
    rotate(board, charter=with_new_carol(board), signers=("alice", "bob"))
    old = board.keys["carol"]
    board.keys["carol"] = board.keys["carol2"]
    board.repository.set_purposes(board.signed_purposes(3))
    board.repository.set_register(board.signed_register(3))
    board.keys["carol"] = old


def policy_of_before(board: BoardKit) -> datetime:
    """What was in force stays listed, as it was signed."""
    _replace_key(board)
    board.publish(now=LATER)
    return LATER


def policy_signed_now(board: BoardKit) -> datetime:
    _replace_key(board)
    envelope = board.signed(board.policy(), "bob", "alice", "carol")
    return _list(board, envelope)


def policy_signed_by_it_alone(board: BoardKit) -> datetime:
    _replace_key(board)
    return _list(board, board.signed(board.policy(), "carol"))


def _list(board: BoardKit, envelope: bytes) -> datetime:
    board.repository.publish(board.keys["secretary"], now=LATER)
    return listed_by_secretary(board, {policy_target(*POLICY): envelope})


ATTACKS = {
    "policy-of-before": policy_of_before,
    "policy-signed-now": policy_signed_now,
    "policy-signed-by-it-alone": policy_signed_by_it_alone,
}


@pytest.mark.parametrize("how", ATTACKS)
def test_the_old_key_signs_no_policy(tmp_path: Path, how: str) -> None:
    assert Siege.lay(tmp_path).refused(ATTACKS[how]) is CODE


def test_signed_with_the_new_key_it_counts(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    _replace_key(siege.board)
    envelope = siege.board.signed(siege.board.policy(2), "alice", "carol2")
    siege.board.publish(envelope, now=LATER)
    permitted(permitted(siege.client.refresh(LATER)).find(POLICY[0], 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [REGISTER_TARGET, PURPOSES_TARGET])
def test_nor_a_register_nor_a_table(tmp_path: Path, target: str) -> None:
    siege = Siege.lay(tmp_path)
    before = siege.board.repository.listed()[target]

    def listed_again(board: BoardKit) -> datetime:
        _replace_key(board)
        board.repository.publish(board.keys["secretary"], now=LATER)
        return listed_by_secretary(board, {target: before})

    assert siege.refused(listed_again) is RefusalCode.TRUST_KEY_RETIRED


def test_nor_a_root(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)

    def another_root(board: BoardKit) -> datetime:
        _replace_key(board)
        board.publish(now=LATER)
        board.repository.root.propose(board.plan, now=LATER)
        draft = Metadata[Root].from_bytes((board.repository.folder / "draft" / "root.json").read_bytes())
        for name in ("alice", "carol"):
            draft.sign(board.keys[name].crypto_signer, append=True)
        draft.to_file(str(board.repository.metadata / "3.root.json"))
        return LATER

    assert siege.refused(another_root) is RefusalCode.TRUST_KEY_RETIRED
