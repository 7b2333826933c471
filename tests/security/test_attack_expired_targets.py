"""A careless secretary names the old list of policies in a fresh snapshot: the list is past its lifetime all the same."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from attack_kit import Siege, snapshot_of, targets_file, timestamp_for
from board_kit import NOW, BoardKit, permitted

from policies.errors import TrustError
from policies.refusals import RefusalCode

CODE = RefusalCode.TRUST_TARGETS_EXPIRED
END = NOW + timedelta(days=90)


def named_again(board: BoardKit) -> datetime:
    version, targets = targets_file(board.repository)
    snapshot = snapshot_of(targets, version, 3, board.keys["secretary"], END + timedelta(days=90))
    timestamp_for(board, board.keys["witness"], snapshot, 3, now=END)
    return END


ATTACKS = {"named-again": named_again}


def test_it_counts_to_the_last_second(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    assert siege.refused(named_again) is CODE
    assert siege.newcomer(END) is CODE
    permitted(siege.client.refresh(END - timedelta(seconds=1)))


def test_an_honest_witness_does_not_vouch_for_it(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    named_again(siege.board)
    with pytest.raises(TrustError, match="targets have expired"):
        siege.board.witness.sign_once(END)
