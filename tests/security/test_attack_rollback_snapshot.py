"""A stolen witness key: it vouches anew for a snapshot older than the station has seen, under its own number or a newer one."""

from datetime import datetime
from pathlib import Path

import pytest
from attack_kit import LATER, Siege, timestamp_for
from board_kit import BoardKit

from policies.refusals import RefusalCode

CODE = RefusalCode.TRUST_ROLLBACK


def older(board: BoardKit) -> datetime:
    data = (board.repository.metadata / "1.snapshot.json").read_bytes()
    timestamp_for(board, board.keys["witness"], data, 1)
    return LATER


def renumbered(board: BoardKit) -> datetime:
    data = (board.repository.metadata / "1.snapshot.json").read_bytes()
    timestamp_for(board, board.keys["witness"], data, 3)
    return LATER


ATTACKS = {"older": older, "renumbered": renumbered}


@pytest.mark.parametrize("how", ATTACKS)
def test_an_older_snapshot_is_refused(tmp_path: Path, how: str) -> None:
    assert Siege.lay(tmp_path).refused(ATTACKS[how]) is CODE
