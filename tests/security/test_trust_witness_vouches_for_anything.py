"""The repository's folder is tampered with between the secretary and the witness."""

from pathlib import Path

import pytest
from board_kit import NOW, BoardKit
from tuf.api.metadata import Metadata, Snapshot, Targets

from policies.errors import TrustError


@pytest.mark.parametrize("role", ["snapshot", "targets"])
@pytest.mark.parametrize("signer", ["stranger", "witness", "alice", None])
def test_only_the_secretarys_word_is_vouched_for(tmp_path: Path, role: str, signer: str | None) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    path = board.repository.metadata / f"1.{role}.json"
    metadata: Metadata[Snapshot] | Metadata[Targets] = Metadata.from_bytes(path.read_bytes())
    metadata.signatures.clear()
    if signer is not None:
        metadata.sign(board.keys[signer].crypto_signer)
    metadata.to_file(str(path))
    with pytest.raises(TrustError):
        board.witness.sign_once(NOW)


def test_the_witness_uses_its_own_key_only(tmp_path: Path) -> None:
    from policies.trust.witness import Witness

    board = BoardKit.found(tmp_path)
    board.publish()
    for name in ("secretary", "alice", "stranger"):
        with pytest.raises(TrustError, match="not the witness's"):
            Witness(board.repository.folder, board.keys[name], 3600).sign_once(NOW)
