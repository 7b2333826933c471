"""The witness's key was stolen and replaced; the thief goes on vouching with it."""

from datetime import datetime
from pathlib import Path

from attack_kit import LATER, Siege, new_key, resigned, rotate
from board_kit import BoardKit, permitted

from policies.refusals import RefusalCode
from policies.trust.witness import Witness

CODE = RefusalCode.TRUST_KEY_RETIRED


def _replace_key(board: BoardKit) -> None:
    key = new_key(board, "witness2")
    rotate(board, witness_key=key.public_hex)
    board.witness = Witness(board.repository.folder, key, 3600)
    board.publish(now=LATER)


def vouches_on(board: BoardKit) -> datetime:
    _replace_key(board)
    forged = resigned(board, "timestamp.json", board.keys["witness"])
    (board.repository.metadata / "timestamp.json").write_bytes(forged)
    return LATER


ATTACKS = {"vouches-on": vouches_on}


def test_the_old_key_vouches_for_nothing(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    assert siege.refused(vouches_on) is CODE
    assert siege.newcomer(LATER) is CODE


def test_the_new_key_does(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    _replace_key(siege.board)
    assert permitted(siege.client.refresh(LATER)).state.root_version == 2
