"""The secretary alone brings back an older register, in which a hospital that left still takes part."""

from pathlib import Path

from board_kit import NOW, BoardKit, permitted, refusal

from policies.charter import REGISTER_TARGET
from policies.refusals import RefusalCode


def test_an_older_register_is_refused(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish_unchecked({REGISTER_TARGET: board.signed_register(2, "amstel")})
    client = board.client()
    register = permitted(client.refresh(NOW)).register
    assert register is not None
    assert [station.name for station in register.stations] == ["amstel"]
    board.publish_unchecked({REGISTER_TARGET: board.signed_register(1, "amstel", "left")})
    assert refusal(client.refresh(NOW)) is RefusalCode.TRUST_ROLLBACK
    register = permitted(client.last_verified(NOW)).register
    assert register is not None
    assert register.find("left") is None


def test_a_register_takes_the_members(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    from board_kit import register_yaml

    from policies.charter import REGISTER_PAYLOAD_TYPE

    for signers in (("alice",), ("alice", "bob"), ("secretary", "witness")):
        envelope = board.signed(register_yaml(), *signers, payload_type=REGISTER_PAYLOAD_TYPE)
        board.publish_unchecked({REGISTER_TARGET: envelope})
        assert refusal(board.client().refresh(NOW)) is RefusalCode.TRUST_SIGNATURES_TOO_FEW
