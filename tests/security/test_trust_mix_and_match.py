"""The mirror combines the newest timestamp with an older snapshot, or an older list of policies."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from board_kit import NOW, BoardKit, refusal

from policies.refusals import RefusalCode


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_parts_of_different_states_do_not_combine(tmp_path: Path, role: str) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    later = NOW + timedelta(minutes=5)
    board.repository.revoke("cxr-classification", 1, "withdrawn", now=later)
    board.publish(now=later)
    metadata = board.repository.metadata
    shutil.copy(metadata / f"1.{role}.json", metadata / f"2.{role}.json")
    assert refusal(board.client().refresh(later)) is RefusalCode.TRUST_MIXED
