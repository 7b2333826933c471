"""Somebody restores the repository's folder to before a revocation and lets the witness vouch for it."""

import shutil
from pathlib import Path

import pytest
from board_kit import NOW, BoardKit

from policies.errors import TrustError


def test_the_witness_never_goes_back(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    metadata = board.repository.metadata
    shutil.copytree(metadata, tmp_path / "old")
    board.repository.revoke("cxr-classification", 1, "withdrawn", now=NOW)
    board.publish()
    shutil.rmtree(metadata)
    shutil.copytree(tmp_path / "old", metadata)
    before = (metadata / "timestamp.json").read_bytes()
    with pytest.raises(TrustError, match="older"):
        board.witness.sign_once(NOW)
    assert (metadata / "timestamp.json").read_bytes() == before
