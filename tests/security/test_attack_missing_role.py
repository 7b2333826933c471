"""Two members sign, enough by number, but nobody speaks for the patients, or as a clinician."""

from datetime import datetime
from pathlib import Path

import pytest
from attack_kit import POLICY, Siege, listed_by_secretary
from board_kit import BoardKit

from policies.charter import policy_target
from policies.refusals import RefusalCode

CODE = RefusalCode.POLICY_SIGNER_ROLE_MISSING


def no_patient_representative(board: BoardKit) -> datetime:
    return listed_by_secretary(board, {policy_target(*POLICY): board.signed(board.policy(), "alice", "bob")})


def no_clinician(board: BoardKit) -> datetime:
    return listed_by_secretary(board, {policy_target(*POLICY): board.signed(board.policy(), "bob", "carol")})


ATTACKS = {"no-patient-representative": no_patient_representative, "no-clinician": no_clinician}


@pytest.mark.parametrize("how", ATTACKS)
def test_a_required_role_is_missing(tmp_path: Path, how: str) -> None:
    assert Siege.lay(tmp_path).refused(ATTACKS[how]) is CODE
