"""One member's key is stolen: a new root that makes the thief the board, signed with it, and by the thief's own people."""

from datetime import datetime
from pathlib import Path

import pytest
from attack_kit import LATER, Siege, new_key
from board_kit import BoardKit
from tuf.api.metadata import Metadata, Root

from policies.charter import Member
from policies.refusals import RefusalCode
from policies.trust.root import RootPlan

CODE = RefusalCode.TRUST_SIGNATURES_TOO_FEW


def _takeover(board: BoardKit, *signers: str) -> datetime:
    """A root whose charter names the thief alone, below the thief's hand and those of whose keys he has."""
    thief = new_key(board, "thief").public_hex
    member = Member(name="Thief", organisation="None", role="clinician", key=thief)
    charter = board.charter.model_copy(update={"members": (member,), "threshold": 1, "required_roles": ()})
    keys = (board.keys["secretary"].public_hex, board.keys["witness"].public_hex)
    board.repository.root.propose(RootPlan(charter, 1, *keys), now=LATER)
    draft = Metadata[Root].from_bytes((board.repository.folder / "draft" / "root.json").read_bytes())
    for name in ("thief", *signers):
        draft.sign(board.keys[name].crypto_signer, append=True)
    draft.to_file(str(board.repository.metadata / "2.root.json"))
    return LATER


def one_member(board: BoardKit) -> datetime:
    return _takeover(board, "alice")


def one_member_and_officers(board: BoardKit) -> datetime:
    return _takeover(board, "carol", "secretary", "witness", "developer")


ATTACKS = {"one-member": one_member, "one-member-and-officers": one_member_and_officers}


@pytest.mark.parametrize("how", ATTACKS)
def test_one_member_makes_no_root(tmp_path: Path, how: str) -> None:
    siege = Siege.lay(tmp_path)
    assert siege.refused(ATTACKS[how]) is CODE
    assert siege.newcomer(LATER) is CODE


def test_the_old_members_alone_do_not_speak_for_the_new(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)

    def without_the_new(board: BoardKit) -> datetime:
        _takeover(board)
        path = board.repository.metadata / "2.root.json"
        root = Metadata[Root].from_bytes(path.read_bytes())
        root.signatures.clear()
        for name in ("alice", "carol"):
            root.sign(board.keys[name].crypto_signer, append=True)
        root.to_file(str(path))
        return LATER

    assert siege.refused(without_the_new) is CODE


def test_none_of_the_members_is_no_root_of_this_board(tmp_path: Path) -> None:
    assert Siege.lay(tmp_path).refused(_takeover) is RefusalCode.TRUST_UNVERIFIED
