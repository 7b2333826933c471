"""The mirror combines well-signed files of different states: the newest timestamp with an older snapshot or list, or newer ones."""

import shutil
from datetime import datetime
from pathlib import Path

import pytest
from attack_kit import LATER, Siege
from board_kit import BoardKit

from policies.refusals import RefusalCode

CODE = RefusalCode.TRUST_MIXED


def _withdraw(board: BoardKit) -> Path:
    board.repository.revoke("cxr-classification", 1, "withdrawn", now=LATER)
    board.publish(now=LATER)
    return board.repository.metadata


def older_snapshot(board: BoardKit) -> datetime:
    metadata = _withdraw(board)
    shutil.copy(metadata / "2.snapshot.json", metadata / "3.snapshot.json")
    return LATER


def older_targets(board: BoardKit) -> datetime:
    metadata = _withdraw(board)
    shutil.copy(metadata / "2.targets.json", metadata / "3.targets.json")
    return LATER


def newer_snapshot(board: BoardKit) -> datetime:
    metadata = _withdraw(board)
    board.repository.publish(board.keys["secretary"], now=LATER, renew=True)
    shutil.copy(metadata / "4.snapshot.json", metadata / "3.snapshot.json")
    return LATER


def targets_for_snapshot(board: BoardKit) -> datetime:
    metadata = _withdraw(board)
    shutil.copy(metadata / "3.targets.json", metadata / "3.snapshot.json")
    return LATER


ATTACKS = {
    "older-snapshot": older_snapshot,
    "older-targets": older_targets,
    "newer-snapshot": newer_snapshot,
    "targets-for-snapshot": targets_for_snapshot,
}


@pytest.mark.parametrize("how", ATTACKS)
def test_parts_of_different_states_do_not_combine(tmp_path: Path, how: str) -> None:
    siege = Siege.lay(tmp_path)
    assert siege.refused(ATTACKS[how]) is CODE
    assert siege.newcomer(LATER) is CODE
