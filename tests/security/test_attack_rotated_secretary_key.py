"""The secretary's key was lost and replaced; whoever found it publishes with it, once with the witness's key beside it."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from attack_kit import LATER, Siege, new_key, rotate, snapshot_of, targets_file, timestamp_for
from board_kit import BoardKit, permitted
from tuf.api.metadata import Metadata, Targets

from policies.errors import TrustError
from policies.refusals import RefusalCode

CODE = RefusalCode.TRUST_KEY_RETIRED


def _replace_key(board: BoardKit) -> None:
    key = new_key(board, "secretary2")
    rotate(board, secretary_key=key.public_hex)
    board.repository.publish(key, now=LATER)
    board.witness.sign_once(LATER)


def _forged(board: BoardKit) -> bytes:
    """A new snapshot below the old key."""
    version, targets = targets_file(board.repository)
    return snapshot_of(targets, version, 3, board.keys["secretary"], LATER + timedelta(days=90))


def snapshot(board: BoardKit) -> datetime:
    _replace_key(board)
    (board.repository.metadata / "3.snapshot.json").write_bytes(_forged(board))
    return LATER


def snapshot_with_witness(board: BoardKit) -> datetime:
    _replace_key(board)
    timestamp_for(board, board.keys["witness"], _forged(board), 3)
    return LATER


def targets_with_witness(board: BoardKit) -> datetime:
    """The snapshot is the new secretary's, who was talked into naming a list that the old key signed."""
    _replace_key(board)
    version, data = targets_file(board.repository)
    targets = Metadata[Targets].from_bytes(data)
    targets.signed.version = version + 1
    targets.sign(board.keys["secretary"].crypto_signer)
    (board.repository.metadata / f"{version + 1}.targets.json").write_bytes(targets.to_bytes())
    expires = LATER + timedelta(days=90)
    newer = snapshot_of(targets.to_bytes(), version + 1, 4, board.keys["secretary2"], expires)
    timestamp_for(board, board.keys["witness"], newer, 4)
    return LATER


ATTACKS = {
    "snapshot": snapshot,
    "snapshot-with-witness": snapshot_with_witness,
    "targets-with-witness": targets_with_witness,
}


@pytest.mark.parametrize("how", ATTACKS)
def test_the_old_key_publishes_nothing(tmp_path: Path, how: str) -> None:
    siege = Siege.lay(tmp_path)
    assert siege.refused(ATTACKS[how]) is CODE
    assert siege.newcomer(LATER) is CODE


def test_the_new_key_does_and_our_tools_refuse_the_old(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    _replace_key(siege.board)
    assert permitted(siege.client.refresh(LATER)).state.root_version == 2
    with pytest.raises(TrustError, match="not the secretary's"):
        siege.board.repository.publish(siege.board.keys["secretary"], now=LATER, renew=True)


def test_an_honest_witness_does_not_vouch_for_the_old_key(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    _replace_key(siege.board)
    (siege.board.repository.metadata / "4.snapshot.json").write_bytes(_forged(siege.board))
    with pytest.raises(TrustError):
        siege.board.witness.sign_once(LATER)
