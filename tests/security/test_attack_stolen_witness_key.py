"""The witness's key, the one on a machine that is always on, is stolen, and nothing else: it puts nothing in force."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from attack_kit import LATER, POLICY, Siege, resigned, snapshot_of, targets_file, timestamp_for
from board_kit import NOW, BoardKit, permitted

from policies.charter import policy_target
from policies.errors import TrustError
from policies.refusals import RefusalCode

CODE = RefusalCode.TRUST_UNVERIFIED


def signs_a_snapshot(board: BoardKit) -> datetime:
    version, targets = targets_file(board.repository)
    expires = LATER + timedelta(days=9000)
    timestamp_for(
        board, board.keys["witness"], snapshot_of(targets, version, 3, board.keys["witness"], expires), 3
    )
    return LATER


def signs_the_list_too(board: BoardKit) -> datetime:
    """Its own list, with a policy that it signed, below its own snapshot."""
    own = board.signed(board.policy(), "witness")
    board.repository._write_listing({policy_target(*POLICY): own}, board.keys["witness"], LATER)
    with pytest.raises(TrustError):
        board.witness.sign_once(LATER)
    snapshot = (board.repository.metadata / "3.snapshot.json").read_bytes()
    timestamp_for(board, board.keys["witness"], snapshot, 3)
    return LATER


ATTACKS = {"signs-a-snapshot": signs_a_snapshot, "signs-the-list-too": signs_the_list_too}


@pytest.mark.parametrize("how", ATTACKS)
def test_it_puts_nothing_in_force(tmp_path: Path, how: str) -> None:
    siege = Siege.lay(tmp_path)
    assert siege.refused(ATTACKS[how]) is CODE
    assert siege.newcomer(LATER) is CODE


def test_our_tools_do_not_publish_with_it(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    with pytest.raises(TrustError, match="not the secretary's"):
        siege.board.repository.publish(siege.board.keys["witness"], now=NOW, renew=True)


def test_nor_does_it_sign_a_policy_or_a_root(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    siege.board.repository.root.propose(siege.board.plan, now=NOW)
    with pytest.raises(TrustError):
        siege.board.repository.root.sign(siege.board.keys["witness"])
    (siege.board.repository.metadata / "2.root.json").write_bytes(
        resigned(siege.board, "1.root.json", siege.board.keys["witness"])
    )
    assert siege.newcomer(NOW) is RefusalCode.TRUST_ROOT_SKIPPED


def test_what_it_can_do_is_to_keep_a_state_fresh_until_the_secretarys_word_ends(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    snapshot = (siege.board.repository.metadata / "2.snapshot.json").read_bytes()
    end = NOW + timedelta(days=90)
    timestamp_for(siege.board, siege.board.keys["witness"], snapshot, 2, now=end - timedelta(minutes=1))
    permitted(siege.client.refresh(end - timedelta(seconds=1)))

    def longer(board: BoardKit) -> datetime:
        timestamp_for(board, board.keys["witness"], snapshot, 2, now=end)
        return end

    assert siege.refused(longer) is RefusalCode.TRUST_TARGETS_EXPIRED
