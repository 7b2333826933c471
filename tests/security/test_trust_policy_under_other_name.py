"""A properly signed policy is listed under another id or a higher version than members signed."""

from pathlib import Path

import pytest
from board_kit import NOW, BoardKit, permitted, refusal

from policies.charter import policy_target
from policies.refusals import RefusalCode


@pytest.mark.parametrize(("name", "version"), [("cxr-classification", 2), ("other-study", 1)])
def test_a_policy_counts_under_its_own_name_only(tmp_path: Path, name: str, version: int) -> None:
    board = BoardKit.found(tmp_path)
    board.publish_unchecked({policy_target(name, version): board.signed(board.policy())})
    found = permitted(board.client().refresh(NOW)).find(name, version)
    assert refusal(found) is RefusalCode.POLICY_INVALID


def test_a_policy_of_another_board_does_not_count(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    envelope = board.signed(board.policy(changes={"board": "other-board"}))
    board.publish_unchecked({policy_target("cxr-classification", 1): envelope})
    found = permitted(board.client().refresh(NOW)).find("cxr-classification", 1)
    assert refusal(found) is RefusalCode.POLICY_OTHER_BOARD
