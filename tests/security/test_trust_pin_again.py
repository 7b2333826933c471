"""Somebody talks an operator into pinning another root."""

from pathlib import Path

import pytest
from board_kit import BoardKit

from policies.errors import TrustError
from policies.trust.client import PolicyClient


def test_a_root_is_pinned_once(tmp_path: Path) -> None:
    ours, theirs = BoardKit.found(tmp_path / "ours"), BoardKit.found(tmp_path / "theirs")
    root = ours.repository.root.pinnable()
    assert PolicyClient.pin(tmp_path / "trust", root) == ours.charter
    assert PolicyClient.pin(tmp_path / "trust", root) == ours.charter
    with pytest.raises(TrustError, match="pinned here already"):
        PolicyClient.pin(tmp_path / "trust", theirs.repository.root.pinnable())
    assert (tmp_path / "trust" / "root.json").read_bytes() == root


def test_a_root_that_lacks_signatures_is_not_pinned(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.repository.root.propose(board.plan, now=board.repository.root.in_force().expires)
    unsigned = (board.repository.folder / "draft" / "root.json").read_bytes()
    with pytest.raises(TrustError):
        PolicyClient.pin(tmp_path / "trust", unsigned)
    for data in (b"", b"{}", b"\xff", (board.repository.metadata / "1.root.json").read_bytes()[:-40]):
        with pytest.raises(TrustError):
            PolicyClient.pin(tmp_path / "trust", data)
    assert not (tmp_path / "trust" / "root.json").exists()
