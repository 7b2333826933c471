"""Two members sign, enough by number, but nobody speaks for the patients (or as a clinician)."""

from pathlib import Path

import pytest
from board_kit import NOW, BoardKit, permitted, refusal

from policies.charter import policy_target
from policies.refusals import RefusalCode


@pytest.mark.parametrize("signers", [("alice", "bob"), ("bob", "carol")])
def test_a_required_role_is_missing(tmp_path: Path, signers: tuple[str, str]) -> None:
    board = BoardKit.found(tmp_path)
    board.publish_unchecked({policy_target("cxr-classification", 1): board.signed(board.policy(), *signers)})
    found = permitted(board.client().refresh(NOW)).find("cxr-classification", 1)
    assert refusal(found) is RefusalCode.POLICY_SIGNER_ROLE_MISSING
