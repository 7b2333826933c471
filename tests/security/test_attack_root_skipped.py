"""The board changed its root twice; the mirror leaves a root out, shows a later one in its place, or keeps all new ones back."""

import shutil
from datetime import datetime
from pathlib import Path

import pytest
from attack_kit import LATER, Siege, rotate
from board_kit import BoardKit, permitted

from policies.refusals import RefusalCode

CODE = RefusalCode.TRUST_ROOT_SKIPPED


def _two_new_roots(board: BoardKit) -> Path:
    rotate(board)
    rotate(board)
    board.publish(now=LATER)
    return board.repository.metadata


def later_in_its_place(board: BoardKit) -> datetime:
    metadata = _two_new_roots(board)
    shutil.move(metadata / "3.root.json", metadata / "2.root.json")
    return LATER


def one_left_out(board: BoardKit) -> datetime:
    (_two_new_roots(board) / "2.root.json").unlink()
    return LATER


def newest_kept_back(board: BoardKit) -> datetime:
    (_two_new_roots(board) / "3.root.json").unlink()
    return LATER


def all_kept_back(board: BoardKit) -> datetime:
    metadata = _two_new_roots(board)
    (metadata / "2.root.json").unlink()
    (metadata / "3.root.json").unlink()
    return LATER


def first_again(board: BoardKit) -> datetime:
    metadata = _two_new_roots(board)
    shutil.copy(metadata / "1.root.json", metadata / "2.root.json")
    return LATER


ATTACKS = {
    "later-in-its-place": later_in_its_place,
    "one-left-out": one_left_out,
    "newest-kept-back": newest_kept_back,
    "all-kept-back": all_kept_back,
    "first-again": first_again,
}


@pytest.mark.parametrize("how", ATTACKS)
def test_no_root_is_left_out(tmp_path: Path, how: str) -> None:
    siege = Siege.lay(tmp_path)
    assert siege.refused(ATTACKS[how]) is CODE
    assert siege.newcomer(LATER) is CODE


def test_root_after_root_is_followed(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    _two_new_roots(siege.board)
    assert permitted(siege.client.refresh(LATER)).state.root_version == 3
    assert permitted(siege.board.client("newcomer").refresh(LATER)).state.root_version == 3
