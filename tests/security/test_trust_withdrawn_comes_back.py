"""The secretary alone lists again what was withdrawn, or an older version than the one in force."""

from pathlib import Path

from board_kit import NOW, BoardKit, permitted, refusal

from policies.charter import policy_target
from policies.refusals import RefusalCode


def test_a_withdrawn_version_stays_withdrawn(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    envelope = board.signed(board.policy())
    board.publish(envelope)
    client = board.client()
    permitted(permitted(client.refresh(NOW)).find("cxr-classification", 1))  # type: ignore[arg-type]
    board.publish_unchecked({})
    assert refusal(permitted(client.refresh(NOW)).find("cxr-classification", 1)) is RefusalCode.POLICY_REVOKED
    board.publish_unchecked({policy_target("cxr-classification", 1): envelope})
    assert refusal(permitted(client.refresh(NOW)).find("cxr-classification", 1)) is RefusalCode.POLICY_REVOKED


def test_an_older_version_stays_replaced(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    first, second = board.signed(board.policy(1)), board.signed(board.policy(2))
    board.publish(second)
    client = board.client()
    permitted(client.refresh(NOW))
    board.publish_unchecked({policy_target("cxr-classification", 1): first})
    assert refusal(permitted(client.refresh(NOW)).find("cxr-classification", 1)) is RefusalCode.POLICY_REVOKED


def test_a_new_version_with_new_signatures_counts(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy(1)))
    client = board.client()
    permitted(client.refresh(NOW))
    board.repository.revoke("cxr-classification", 1, "a mistake in it", now=NOW)
    board.publish(board.signed(board.policy(2)))
    found = permitted(client.refresh(NOW))
    assert refusal(found.find("cxr-classification", 1)) is RefusalCode.POLICY_REVOKED
    permitted(found.find("cxr-classification", 2))  # type: ignore[arg-type]
