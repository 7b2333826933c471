"""One warm container over two hundred rounds: what the station holds does not grow with them."""

import gc
import re
import threading
from pathlib import Path

import pytest
from station_kit import StationKit
from warm_kit import warm_station

from policies.wire.instructions import Kind
from station.sandbox.spec import MIB

pytestmark = pytest.mark.docker

ROUNDS = 200
WARM_UP = 40
GROWTH_BYTES = 4 * MIB
"""Over 160 rounds; half a megabyte was seen. A round that kept its reader, with a chunk of 1 MiB, would need 160."""


def held() -> tuple[int, int, int]:
    """Memory, open files and threads of this process."""
    gc.collect()
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024, sum(1 for _ in Path("/proc/self/fd").iterdir()), threading.active_count()


def ask(kit: StationKit, envelope: bytes, rounds: range) -> None:
    for number in rounds:
        reply, _ = kit.message(envelope, Kind.TRAIN, number)
        assert (reply.status.value, reply.code) == ("released", None), number


def test_memory_descriptors_and_threads_stay_flat(tmp_path: Path) -> None:
    granted = {"runs.rounds": ROUNDS, "runs.releases": ROUNDS}
    with warm_station(tmp_path, granted) as kit:
        envelope = kit.ready(rounds=ROUNDS, stages=["train"])
        ask(kit, envelope, range(1, WARM_UP + 1))
        memory, descriptors, threads = held()
        ask(kit, envelope, range(WARM_UP + 1, ROUNDS + 1))
        after, descriptors_after, threads_after = held()
        assert after - memory < GROWTH_BYTES
        assert descriptors_after <= descriptors
        assert threads_after <= threads
        assert kit.events().count("container-started") == 1
