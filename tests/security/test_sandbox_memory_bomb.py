"""Attack: a train takes all the memory it can get, as memory and as files in its tmpfs."""

import time

import pytest
from sandbox_kit import Station

from station.sandbox.spec import MIB, ExitClass, TrainFailure

pytestmark = pytest.mark.docker


def test_a_train_beyond_its_memory_is_killed(station: Station) -> None:
    with station.session(memory_bytes=256 * MIB) as session:
        began = time.monotonic()
        answer = station.ask(session, "kept['x'] = [b'x' * (1 << 20) for _ in range(4096)]", timeout_s=500)
        assert isinstance(answer, TrainFailure)
        assert answer.exit_class is ExitClass.OUT_OF_MEMORY
        assert answer.session_ended
        assert not session.alive
        assert time.monotonic() - began < 250


def test_files_in_scratch_count_as_memory(station: Station) -> None:
    with station.session(memory_bytes=256 * MIB, scratch_bytes=1024 * MIB) as session:
        code = "f = open('/train/scratch/x', 'wb')\nfor _ in range(1000): f.write(b'x' * (1 << 20))"
        answer = station.ask(session, code)
        assert isinstance(answer, TrainFailure)
        assert answer.exit_class is ExitClass.OUT_OF_MEMORY


def test_no_swap_is_given(station: Station) -> None:
    with station.session() as session:
        limits = station.find(
            session,
            """
import os
found = {}
for name in ("memory/memory.limit_in_bytes", "memory/memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max"):
    if os.path.exists("/sys/fs/cgroup/" + name):
        found[name.split("/")[-1]] = open("/sys/fs/cgroup/" + name).read().strip()
""",
        )
    assert limits in (
        {"memory.limit_in_bytes": str(512 * MIB), "memory.memsw.limit_in_bytes": str(512 * MIB)},
        {"memory.max": str(512 * MIB), "memory.swap.max": "0"},
    )
