"""A development key, which signs alone for public data, is used to get at patients' data."""

from pathlib import Path

from board_kit import NOW, BoardKit, permitted, refusal

from policies.charter import policy_target
from policies.refusals import RefusalCode


def test_alone_it_makes_no_policy_of_the_board(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    for signers in (("developer",), ("developer", "alice")):
        board.publish_unchecked(
            {policy_target("cxr-classification", 1): board.signed(board.policy(), *signers)}
        )
        found = permitted(board.client().refresh(NOW)).find("cxr-classification", 1)
        assert refusal(found) is RefusalCode.POLICY_SIGNATURES_TOO_FEW


def test_what_it_signs_says_development_for_ever(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy(changes={"role": "development"}), "developer"))
    found = permitted(permitted(board.client().refresh(NOW)).find("cxr-classification", 1))  # type: ignore[arg-type]
    assert found.policy.role == "development"  # type: ignore[attr-defined]


def test_members_do_not_sign_for_development(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    envelope = board.signed(board.policy(changes={"role": "development"}), "alice", "carol")
    board.publish_unchecked({policy_target("cxr-classification", 1): envelope})
    found = permitted(board.client().refresh(NOW)).find("cxr-classification", 1)
    assert refusal(found) is RefusalCode.POLICY_SIGNATURES_TOO_FEW
