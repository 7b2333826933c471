"""Members signed one kind of document; the bytes are offered as another kind."""

import json
from pathlib import Path

from board_kit import NOW, BoardKit, permitted, refusal

from policies.charter import POLICY_PAYLOAD_TYPE, REGISTER_PAYLOAD_TYPE, policy_target
from policies.refusals import RefusalCode


def test_a_register_signature_makes_no_policy(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    signed = board.signed(board.policy(), "alice", "carol", payload_type=REGISTER_PAYLOAD_TYPE)
    relabelled = json.dumps(json.loads(signed) | {"payloadType": POLICY_PAYLOAD_TYPE}).encode()
    for envelope in (signed, relabelled):
        board.publish_unchecked({policy_target("cxr-classification", 1): envelope})
        found = permitted(board.client().refresh(NOW)).find("cxr-classification", 1)
        assert refusal(found) is RefusalCode.POLICY_SIGNATURES_TOO_FEW
