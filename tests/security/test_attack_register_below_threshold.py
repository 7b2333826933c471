"""The secretary lists a register, or a table of purposes, that too few members signed, or none in a role it takes."""

from datetime import datetime
from pathlib import Path

import pytest
import yaml
from attack_kit import LATER, Siege, listed_by_secretary
from board_kit import PURPOSES, BoardKit, permitted, register_yaml

from policies.charter import REGISTER_PAYLOAD_TYPE, REGISTER_TARGET
from policies.purposes import PURPOSES_PAYLOAD_TYPE, PURPOSES_TARGET
from policies.refusals import RefusalCode

CODE = RefusalCode.TRUST_SIGNATURES_TOO_FEW


def _register(board: BoardKit, *signers: str) -> datetime:
    data = board.signed(register_yaml(3, "amstel", "mole"), *signers, payload_type=REGISTER_PAYLOAD_TYPE)
    return listed_by_secretary(board, {REGISTER_TARGET: data})


def register_of_one(board: BoardKit) -> datetime:
    return _register(board, "alice", "secretary", "witness", "developer")


def register_without_patients(board: BoardKit) -> datetime:
    return _register(board, "alice", "bob")


def _purposes(board: BoardKit, *signers: str) -> datetime:
    document = yaml.safe_load(PURPOSES.read_text("utf-8")) | {"version": 3}
    data = board.signed(yaml.safe_dump(document).encode(), *signers, payload_type=PURPOSES_PAYLOAD_TYPE)
    return listed_by_secretary(board, {PURPOSES_TARGET: data})


def purposes_of_one(board: BoardKit) -> datetime:
    return _purposes(board, "carol", "secretary")


def purposes_without_clinician(board: BoardKit) -> datetime:
    return _purposes(board, "bob", "carol")


ATTACKS = {
    "register-of-one": register_of_one,
    "register-without-patients": register_without_patients,
    "purposes-of-one": purposes_of_one,
    "purposes-without-clinician": purposes_without_clinician,
}


@pytest.mark.parametrize("how", ATTACKS)
def test_it_does_not_count(tmp_path: Path, how: str) -> None:
    siege = Siege.lay(tmp_path)
    assert siege.refused(ATTACKS[how]) is CODE
    register = permitted(siege.client.last_verified(LATER)).register
    assert register is not None
    assert register.find("mole") is None
