"""The secretary lists a policy that too few members signed: one of two, one twice, or people who are no members."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from attack_kit import POLICY, Siege, listed_by_secretary
from board_kit import BoardKit

from policies.charter import policy_target
from policies.errors import RefusedError
from policies.refusals import RefusalCode

CODE = RefusalCode.POLICY_SIGNATURES_TOO_FEW
TARGET = policy_target(*POLICY)


def one_member(board: BoardKit) -> datetime:
    return listed_by_secretary(board, {TARGET: board.signed(board.policy(), "alice")})


def one_member_and_officers(board: BoardKit) -> datetime:
    people = ("carol", "secretary", "witness", "developer", "stranger")
    return listed_by_secretary(board, {TARGET: board.signed(board.policy(), *people)})


def nobody_of_the_board(board: BoardKit) -> datetime:
    return listed_by_secretary(board, {TARGET: board.signed(board.policy(), "secretary", "stranger")})


def one_signature_under_two_names(board: BoardKit) -> datetime:
    document = json.loads(board.signed(board.policy(), "alice"))
    copy = dict(document["signatures"][0], keyid=board.keys["carol"].crypto_signer.public_key.keyid)
    document["signatures"].append(copy)
    return listed_by_secretary(board, {TARGET: json.dumps(document).encode()})


ATTACKS = {
    "one-member": one_member,
    "one-member-and-officers": one_member_and_officers,
    "nobody-of-the-board": nobody_of_the_board,
    "one-signature-under-two-names": one_signature_under_two_names,
}


@pytest.mark.parametrize("how", ATTACKS)
def test_too_few_members_make_no_policy(tmp_path: Path, how: str) -> None:
    assert Siege.lay(tmp_path).refused(ATTACKS[how]) is CODE


@pytest.mark.parametrize("signer", ["alice", "bob", "carol", "secretary", "stranger", "developer"])
def test_our_own_tools_do_not_even_stage_it(tmp_path: Path, signer: str) -> None:
    board = BoardKit.found(tmp_path)
    with pytest.raises(RefusedError) as refused:
        board.repository.add_policy(board.signed(board.policy(), signer))
    assert refused.value.code == CODE
