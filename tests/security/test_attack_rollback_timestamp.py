"""The mirror hands out the witness's word of before, and with it the whole state of before."""

import shutil
from datetime import datetime
from pathlib import Path

from attack_kit import LATER, Siege, old_state
from board_kit import BoardKit, permitted

from policies.refusals import RefusalCode

CODE = RefusalCode.TRUST_ROLLBACK


def older_timestamp(board: BoardKit) -> datetime:
    name = "metadata/timestamp.json"
    shutil.copy(old_state(board) / name, board.repository.folder / name)
    return LATER


ATTACKS = {"older-timestamp": older_timestamp}


def test_an_older_timestamp_is_refused(tmp_path: Path) -> None:
    assert Siege.lay(tmp_path).refused(older_timestamp) is CODE


def test_what_the_station_knows_itself_still_counts(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    siege.refused(older_timestamp)
    assert permitted(siege.client.last_verified(LATER)).state.timestamp_version == 2
