"""The mirror keeps serving one state for ever, so that no revocation arrives: it counts for one lifetime of the timestamp."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from attack_kit import Siege
from board_kit import NOW, BoardKit, permitted, refusal

from policies.refusals import RefusalCode

CODE = RefusalCode.TRUST_EXPIRED
ONE_LIFETIME = timedelta(seconds=3600)


def frozen(_board: BoardKit) -> datetime:
    return NOW + ONE_LIFETIME


ATTACKS = {"frozen": frozen}


def test_it_counts_for_one_lifetime_and_no_second_more(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    permitted(siege.client.refresh(NOW + ONE_LIFETIME - timedelta(seconds=1)))
    assert siege.refused(frozen) is CODE
    assert refusal(siege.client.last_verified(NOW + ONE_LIFETIME)) is CODE


def test_a_new_station_is_not_fooled_either(tmp_path: Path) -> None:
    assert Siege.lay(tmp_path).newcomer(NOW + ONE_LIFETIME) is CODE


@pytest.mark.parametrize("gone", ["timestamp.json", "2.snapshot.json", "2.targets.json"])
def test_a_mirror_that_withholds_a_file_wins_no_longer(tmp_path: Path, gone: str) -> None:
    siege = Siege.lay(tmp_path)
    (siege.board.repository.metadata / gone).unlink()
    permitted(siege.client.refresh(NOW + ONE_LIFETIME - timedelta(seconds=1)))
    assert siege.refused(frozen) is CODE
