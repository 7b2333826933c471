"""The secretary's snapshot is past its lifetime, while the witness's word is fresh."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from attack_kit import Siege, timestamp_for
from board_kit import NOW, BoardKit, permitted

from policies.errors import TrustError
from policies.refusals import RefusalCode

CODE = RefusalCode.TRUST_TARGETS_EXPIRED
END = NOW + timedelta(days=90)


def vouched_for_on_the_eve(board: BoardKit) -> datetime:
    board.witness.sign_once(END - timedelta(minutes=10))
    return END


def vouched_for_with_a_stolen_key(board: BoardKit) -> datetime:
    data = (board.repository.metadata / "2.snapshot.json").read_bytes()
    timestamp_for(board, board.keys["witness"], data, 2, now=END)
    return END


ATTACKS = {"eve": vouched_for_on_the_eve, "stolen-witness-key": vouched_for_with_a_stolen_key}


@pytest.mark.parametrize("how", ATTACKS)
def test_it_counts_to_the_last_second(tmp_path: Path, how: str) -> None:
    siege = Siege.lay(tmp_path)
    assert siege.refused(ATTACKS[how]) is CODE
    assert siege.newcomer(END) is CODE
    permitted(siege.client.refresh(END - timedelta(seconds=1)))


def test_an_honest_witness_does_not_vouch_for_it(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    with pytest.raises(TrustError, match="expired"):
        siege.board.witness.sign_once(END)
