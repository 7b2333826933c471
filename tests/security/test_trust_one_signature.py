"""A policy signed by one member, listed all the same by a secretary who is up to no good."""

from pathlib import Path

import pytest
from board_kit import NOW, BoardKit, permitted, refusal

from policies.charter import policy_target
from policies.errors import RefusedError
from policies.refusals import RefusalCode


@pytest.mark.parametrize("signer", ["alice", "bob", "carol", "secretary", "stranger", "developer"])
def test_one_signature_is_too_few(tmp_path: Path, signer: str) -> None:
    board = BoardKit.found(tmp_path)
    envelope = board.signed(board.policy(), signer)
    with pytest.raises(RefusedError) as refused:
        board.repository.add_policy(envelope)
    assert refused.value.code == RefusalCode.POLICY_SIGNATURES_TOO_FEW

    board.publish_unchecked({policy_target("cxr-classification", 1): envelope})
    found = permitted(board.client().refresh(NOW)).find("cxr-classification", 1)
    assert refusal(found) is RefusalCode.POLICY_SIGNATURES_TOO_FEW
