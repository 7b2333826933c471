"""Stolen keys of secretary and witness together: a new snapshot, well signed, that names an older list of policies."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from attack_kit import LATER, Siege, snapshot_of, timestamp_for
from board_kit import BoardKit

from policies.errors import TrustError
from policies.refusals import RefusalCode

CODE = RefusalCode.TRUST_ROLLBACK


def _snapshot(board: BoardKit) -> bytes:
    targets = (board.repository.metadata / "1.targets.json").read_bytes()
    return snapshot_of(targets, 1, 3, board.keys["secretary"], LATER + timedelta(days=90))


def older_list(board: BoardKit) -> datetime:
    timestamp_for(board, board.keys["witness"], _snapshot(board), 3)
    return LATER


ATTACKS = {"older-list": older_list}


def test_an_older_list_is_refused(tmp_path: Path) -> None:
    assert Siege.lay(tmp_path).refused(older_list) is CODE


def test_an_honest_witness_does_not_vouch_for_it(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    (siege.board.repository.metadata / "3.snapshot.json").write_bytes(_snapshot(siege.board))
    with pytest.raises(TrustError, match="older"):
        siege.board.witness.sign_once(LATER)
