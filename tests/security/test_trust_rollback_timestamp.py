"""The mirror hands out the state of before a revocation."""

import shutil
from datetime import timedelta
from pathlib import Path

from board_kit import NOW, BoardKit, permitted, refusal

from policies.refusals import RefusalCode


def test_an_older_state_than_seen_before_is_refused(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    shutil.copytree(board.repository.folder, tmp_path / "old")
    later = NOW + timedelta(minutes=10)
    board.repository.revoke("cxr-classification", 1, "withdrawn", now=later)
    board.publish(now=later)
    assert refusal(permitted(board.client().refresh(later)).find("cxr-classification", 1)) is (
        RefusalCode.POLICY_REVOKED
    )

    replayed = board.client(mirror=tmp_path / "old").refresh(later)
    assert refusal(replayed) is RefusalCode.TRUST_ROLLBACK
    # ... and it stays refused for what the station knows itself
    assert refusal(permitted(board.client().last_verified(later)).find("cxr-classification", 1)) is (
        RefusalCode.POLICY_REVOKED
    )
