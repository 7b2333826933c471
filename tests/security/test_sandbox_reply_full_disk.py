"""Attack: answers that would fill the hospital's disk."""

import os
from pathlib import Path

import pytest
from reply_kit import Liars

from policies.errors import StorageError
from station.sandbox.spec import MIB, ReplyLimits, TrainRequest

pytestmark = pytest.mark.docker


def test_an_answer_leaves_the_disk_the_room_that_it_must(liars: Liars, tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    with liars.liar(tmp_path) as train:
        stored = train.folder / "reply.safetensors"
        limits = ReplyLimits(stored, 64 * MIB, keep_free_bytes=disk.f_blocks * disk.f_frsize)
        with pytest.raises(StorageError, match="No space left"):
            train.session.exchange(TrainRequest("train", 1, {"lie": "fill"}), limits, 300)
        assert not stored.exists()
        assert not train.session.alive


def test_one_answer_takes_the_place_of_the_one_before(liars: Liars, tmp_path: Path) -> None:
    with liars.liar(tmp_path) as train:
        for _ in range(3):
            assert train.ask("fill", max_arrays_bytes=64 * MIB).reply.arrays_bytes == 48 * MIB
        assert [path.name for path in train.folder.iterdir()] == ["reply.safetensors"]
