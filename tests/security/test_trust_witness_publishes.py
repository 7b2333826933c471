"""The witness's key, the one that lies on a machine that is always on, is stolen: can it approve or withdraw?"""

from pathlib import Path

import pytest
from board_kit import NOW, BoardKit, refusal

from policies.charter import policy_target
from policies.errors import TrustError
from policies.refusals import RefusalCode


def test_the_witness_cannot_publish(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    with pytest.raises(TrustError, match="not the secretary's"):
        board.repository.publish(board.keys["witness"], now=NOW, renew=True)
    envelope = board.signed(board.policy())
    board.repository._write_listing(
        {policy_target("cxr-classification", 1): envelope}, board.keys["witness"], NOW
    )
    with pytest.raises(TrustError):
        board.witness.sign_once(NOW)


def test_a_timestamp_by_the_secretary_is_refused(tmp_path: Path) -> None:
    from tuf.api.metadata import Metadata

    board = BoardKit.found(tmp_path)
    board.publish()
    path = board.repository.metadata / "timestamp.json"
    metadata = Metadata.from_bytes(path.read_bytes())
    metadata.sign(board.keys["secretary"].crypto_signer)
    metadata.to_file(str(path))
    assert refusal(board.client().refresh(NOW)) is RefusalCode.TRUST_UNVERIFIED
