"""The secretary alone brings back an older register, in which a hospital that left still takes part."""

from datetime import datetime
from pathlib import Path

from attack_kit import LATER, Siege, listed_by_secretary
from board_kit import BoardKit, permitted

from policies.charter import REGISTER_TARGET
from policies.refusals import RefusalCode

CODE = RefusalCode.TRUST_ROLLBACK


def older_register(board: BoardKit) -> datetime:
    return listed_by_secretary(board, {REGISTER_TARGET: board.signed_register(1, "amstel", "left")})


ATTACKS = {"older-register": older_register}


def test_an_older_register_is_refused(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    assert siege.refused(older_register) is CODE
    register = permitted(siege.client.last_verified(LATER)).register
    assert register is not None
    assert register.find("left") is None


def test_a_register_that_is_taken_away_does_not_come_back_older(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    listing = {
        path: data for path, data in siege.board.repository.listed().items() if path != REGISTER_TARGET
    }
    siege.board.publish_unchecked(listing, LATER)
    assert permitted(siege.client.refresh(LATER)).register is None
    assert siege.refused(older_register) is CODE
