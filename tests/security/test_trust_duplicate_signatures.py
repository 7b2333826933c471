"""One member's signature, copied until it looks like two members'."""

import json
from pathlib import Path

import pytest
from board_kit import BoardKit

from policies.charter import POLICY_PAYLOAD_TYPE
from policies.errors import TrustError
from policies.signing import verify_envelope


def test_one_signature_under_several_key_ids(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    document = json.loads(board.signed(board.policy(), "alice"))
    members = [member.key for member in board.charter.members]
    for name in ("bob", "carol"):
        copy = dict(document["signatures"][0], keyid=board.keys[name].crypto_signer.public_key.keyid)
        document["signatures"].append(copy)
    with pytest.raises(TrustError, match="1 of the 2"):
        verify_envelope(json.dumps(document).encode(), POLICY_PAYLOAD_TYPE, members, 2)


def test_one_signature_twice_under_one_key_id(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    document = json.loads(board.signed(board.policy(), "alice"))
    document["signatures"] *= 2
    with pytest.raises(TrustError):
        verify_envelope(
            json.dumps(document).encode(), POLICY_PAYLOAD_TYPE, [board.keys["alice"].public_hex], 1
        )
