"""Somebody damages the station's memory, hoping that it starts afresh and forgets what it has seen."""

from pathlib import Path

import pytest
from board_kit import NOW, BoardKit, permitted, refusal

from policies.refusals import RefusalCode


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"schema_version":1', b"\xff\xff", b'{"schema_version":2}']
)
def test_a_damaged_memory_refuses(tmp_path: Path, content: bytes) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    client = board.client()
    permitted(client.refresh(NOW))
    (tmp_path / "station" / "verified.json").write_bytes(content)
    assert refusal(client.refresh(NOW)) is RefusalCode.TRUST_UNVERIFIED
    assert refusal(client.last_verified(NOW)) is RefusalCode.TRUST_UNVERIFIED
    assert (tmp_path / "station" / "verified.json").read_bytes() == content


def test_a_forged_memory_is_verified_again(tmp_path: Path) -> None:
    ours, theirs = BoardKit.found(tmp_path / "ours"), BoardKit.found(tmp_path / "theirs")
    for board in (ours, theirs):
        board.publish()
        permitted(board.client().refresh(NOW))
    forged = (tmp_path / "theirs" / "station" / "verified.json").read_bytes()
    (tmp_path / "ours" / "station" / "verified.json").write_bytes(forged)
    assert refusal(ours.client().last_verified(NOW)) is RefusalCode.TRUST_UNVERIFIED
