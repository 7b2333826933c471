"""The mirror keeps serving one state for ever, so that a revocation never arrives."""

from datetime import timedelta
from pathlib import Path

from board_kit import NOW, BoardKit, permitted, refusal

from policies.refusals import RefusalCode


def test_a_frozen_mirror_counts_for_one_lifetime(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    client = board.client()
    permitted(client.refresh(NOW))
    permitted(client.refresh(NOW + timedelta(seconds=3599)))
    assert refusal(client.refresh(NOW + timedelta(seconds=3601))) is RefusalCode.TRUST_EXPIRED
    assert refusal(client.last_verified(NOW + timedelta(seconds=3601))) is RefusalCode.TRUST_EXPIRED


def test_a_new_station_is_not_fooled_either(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    assert refusal(board.client().refresh(NOW + timedelta(hours=2))) is RefusalCode.TRUST_EXPIRED
