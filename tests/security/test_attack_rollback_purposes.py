"""The secretary alone brings back an older table of purposes, under which fewer consents were needed."""

from datetime import datetime
from pathlib import Path

from attack_kit import LATER, Siege, listed_by_secretary
from board_kit import BoardKit, permitted

from policies.purposes import PURPOSES_TARGET
from policies.refusals import RefusalCode

CODE = RefusalCode.TRUST_ROLLBACK


def older_table(board: BoardKit) -> datetime:
    return listed_by_secretary(board, {PURPOSES_TARGET: board.signed_purposes(1)})


ATTACKS = {"older-table": older_table}


def test_an_older_table_is_refused(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    assert siege.refused(older_table) is CODE
    table = permitted(siege.client.last_verified(LATER)).purposes
    assert table is not None
    assert table.version == 2


def test_a_table_that_is_taken_away_does_not_come_back_older(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    listing = {
        path: data for path, data in siege.board.repository.listed().items() if path != PURPOSES_TARGET
    }
    siege.board.publish_unchecked(listing, LATER)
    assert permitted(siege.client.refresh(LATER)).purposes is None
    assert siege.refused(older_table) is CODE
