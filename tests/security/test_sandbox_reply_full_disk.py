"""Attack: answers that would fill the hospital's disk."""

import errno
import os
from pathlib import Path

import pytest
from reply_kit import Liars

from policies.errors import StorageError
from policies.wire import frames
from station.sandbox.spec import MIB, ExitClass, ReplyLimits, TrainRequest

pytestmark = pytest.mark.docker


def test_an_answer_leaves_the_disk_the_room_that_it_must(liars: Liars, tmp_path: Path) -> None:
    """Whatever it would answer: the room is asked for before it is, so that a full disk is no word of its own."""
    disk = os.statvfs(tmp_path)
    with liars.liar(tmp_path) as train:
        stored = train.folder / "reply.safetensors"
        limits = ReplyLimits(stored, 64 * MIB, keep_free_bytes=disk.f_blocks * disk.f_frsize)
        for lie in ("fill", "honest"):
            with pytest.raises(StorageError, match="No space left"):
                train.session.exchange(TrainRequest("train", 1, {"lie": lie}), limits, 300)
        assert not stored.exists()
        assert train.session.alive
        train.honest()


def test_a_disk_that_fills_while_it_answers_is_its_failure(
    liars: Liars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its length is its own to choose, and so whether there is room for it: counted like every failure of its own."""
    asked: list[int | Path] = []

    def room(on: int | Path, needed: int) -> None:
        asked.append(on)
        if isinstance(on, int):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(frames, "require_room", room)
    with liars.liar(tmp_path) as train:
        failure = train.ask("fill", max_arrays_bytes=64 * MIB).failure
        assert failure.exit_class is ExitClass.NO_ROOM
        assert failure.session_ended
    assert len(asked) == 1, "the disk was looked at while the answer came"


def test_one_answer_takes_the_place_of_the_one_before(liars: Liars, tmp_path: Path) -> None:
    with liars.liar(tmp_path) as train:
        for _ in range(3):
            assert train.ask("fill", max_arrays_bytes=64 * MIB).reply.arrays_bytes == 48 * MIB
        assert [path.name for path in train.folder.iterdir()] == ["reply.safetensors"]
