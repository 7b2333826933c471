"""The requester sits on the board and approves the request they made."""

from pathlib import Path

from board_kit import NOW, BoardKit, permitted, refusal

from policies.charter import policy_target
from policies.refusals import RefusalCode


def find(board: BoardKit, payload: bytes) -> RefusalCode:
    board.publish_unchecked(
        {policy_target("cxr-classification", 1): board.signed(payload, "alice", "bob", "carol")}
    )
    return refusal(permitted(board.client().refresh(NOW)).find("cxr-classification", 1))


def test_with_the_very_key_that_orders_runs(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    payload = board.policy(changes={"requester.key": board.keys["alice"].public_hex})
    assert find(board, payload) is RefusalCode.POLICY_SIGNER_IS_REQUESTER


def test_with_a_second_key_under_the_same_name(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    assert (
        find(board, board.policy(changes={"requester.contact": "ALICE"}))
        is RefusalCode.POLICY_SIGNER_IS_REQUESTER
    )
