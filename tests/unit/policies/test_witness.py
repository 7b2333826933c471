"""The freshness witness where nobody attacks: short lifetimes, its own memory, the loop."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from board_kit import NOW, BoardKit, permitted

from policies.errors import NotFoundError, StateError, TrustError, UsageError
from policies.trust.witness import Witness


def test_it_vouches_for_one_lifetime(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.repository.publish(board.keys["secretary"], now=NOW)
    vouched = Witness(board.repository.folder, board.keys["witness"], 60).sign_once(NOW)
    assert vouched.expires == NOW + timedelta(seconds=60)
    assert permitted(board.client().refresh(NOW)).state.expires == vouched.expires
    assert board.witness.sign_once(NOW).timestamp_version == vouched.timestamp_version + 1


def test_it_has_nothing_to_vouch_for_before_a_publication(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    with pytest.raises(NotFoundError):
        board.witness.sign_once(NOW)


def test_a_stale_publication_is_not_made_fresh(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    with pytest.raises(TrustError, match="expired"):
        board.witness.sign_once(NOW + timedelta(days=91))
    with pytest.raises(TrustError, match="root has expired"):
        board.witness.sign_once(NOW + timedelta(days=366))


def test_a_lost_memory_does_not_reuse_a_version(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    board.witness.sign_once(NOW)
    (board.repository.folder / "witness" / "state.json").unlink()
    assert board.witness.sign_once(NOW).timestamp_version == 3


def test_a_damaged_memory_stops_it(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    (board.repository.folder / "witness" / "state.json").write_text("{}")
    with pytest.raises(StateError):
        board.witness.sign_once(NOW)


def test_a_lifetime_is_a_second_at_least(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    with pytest.raises(UsageError):
        Witness(board.repository.folder, board.keys["witness"], 0)


def test_the_loop_vouches_at_once_for_what_is_published_anew(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    stop, vouched = threading.Event(), threading.Semaphore(0)
    loop = threading.Thread(
        target=board.witness.run, args=(3600.0, stop, lambda: datetime.now(UTC), vouched.release)
    )
    loop.start()
    try:
        # it starts before anything is published, and recovers from that
        board.repository.publish(board.keys["secretary"], now=NOW)
        assert vouched.acquire(timeout=120)
        board.repository.publish(board.keys["secretary"], now=NOW, renew=True)
        assert vouched.acquire(timeout=120)
        timestamp = board.repository.timestamp()
        assert timestamp is not None
        assert timestamp.snapshot_meta.version == 2
    finally:
        stop.set()
        loop.join(120)
    # Before the hour that it waits is over.
    assert not loop.is_alive()


def test_two_witnesses_at_once_share_no_version(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    versions: list[int] = []

    def sign() -> None:
        twin = Witness(board.repository.folder, board.keys["witness"], 60)
        versions.extend(twin.sign_once(NOW).timestamp_version for _ in range(10))

    threads = [threading.Thread(target=sign) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(versions) == list(range(2, 42))
