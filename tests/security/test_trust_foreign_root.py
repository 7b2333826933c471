"""The mirror serves a perfect repository, of another board that the attacker founded."""

from pathlib import Path

from board_kit import NOW, BoardKit, permitted, refusal

from policies.refusals import RefusalCode


def test_another_boards_repository_is_refused(tmp_path: Path) -> None:
    ours, theirs = BoardKit.found(tmp_path / "ours"), BoardKit.found(tmp_path / "theirs")
    ours.publish()
    theirs.publish(theirs.signed(theirs.policy()))
    theirs.publish(now=NOW)
    permitted(ours.client().refresh(NOW))
    assert refusal(ours.client(mirror=theirs.repository.folder).refresh(NOW)) is RefusalCode.TRUST_UNVERIFIED
    assert refusal(ours.client("new", mirror=theirs.repository.folder).refresh(NOW)) is (
        RefusalCode.TRUST_UNVERIFIED
    )


def test_nothing_is_believed_before_a_root_is_pinned(tmp_path: Path) -> None:
    from policies.trust.client import PolicyClient

    board = BoardKit.found(tmp_path)
    board.publish()
    (tmp_path / "unpinned").mkdir()
    client = PolicyClient(tmp_path / "unpinned", board.repository.folder)
    assert refusal(client.refresh(NOW)) is RefusalCode.TRUST_UNVERIFIED
