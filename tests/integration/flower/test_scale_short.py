"""Thirty simulated stations on one real orchestrator: all take part, and what they cost its processes is bounded and given back.

The long form, with seconds and ratios, is `make bench-scale`. No clock is looked at here.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.federation.ports import free_port
from orchestrator.federation.superlink import SuperLinkFiles
from tests.bench.scale_consortium import RunCost, ScaleConsortium
from tests.bench.scale_processes import Reading, parts_of, read_process
from tests.bench.scale_stations import Stations

pytestmark = pytest.mark.superlink

STATIONS = 30
ROUNDS = 3
MODEL_MB = 4.0
RISE = 20
"""Models that the ServerApp may take beyond what it has before the first update: a few pieces of each, whatever their number."""

TIMING = {"prepare_s": 300.0, "prepare_grace_s": 300.0, "answer_s": 300.0, "straggler_s": 300.0}


@pytest.fixture
def consortium(tmp_path: Path) -> Iterator[ScaleConsortium]:
    with ScaleConsortium(tmp_path / "consortium", STATIONS, free_port(), TIMING) as found:
        yield found


def test_thirty_stations_take_part_and_nothing_of_it_stays(
    consortium: ScaleConsortium, tmp_path: Path
) -> None:
    with Stations(
        consortium.members(STATIONS), consortium.home.ca_certificate, tmp_path / "stations", each=STATIONS
    ) as stations:
        cost = consortium.run(STATIONS, int(MODEL_MB * 1e6), ROUNDS, ["train"])
        after = settled(consortium, cost)
        counted = stations.counted()
    assert [each.took_part for each in cost.rounds] == [STATIONS] * ROUNDS
    # All updates at once would be thirty models, and several copies of each.
    assert rise_mb(cost) < RISE * MODEL_MB
    for name, now in after.items():
        assert now.descriptors <= most(cost, name, "descriptors") + 8, name
        assert now.threads <= most(cost, name, "threads") + 8, name
    bells = SuperLinkFiles(consortium.home.superlink).doorbells
    rung = [int(path.name) for path in bells.folder.iterdir() if path.name.isdigit()]
    assert len(rung) == STATIONS
    assert min(bells.rings(node) for node in rung) >= ROUNDS + len(["prepare", "finish"])
    for each in counted.values():
        # Each round's weights once, each update once, and little beside them.
        assert len(each["fetch_s"]) == len(each["push_s"]) == ROUNDS
        assert each["received"] < (ROUNDS + 0.5) * MODEL_MB * 1e6
        assert each["sent"] < (ROUNDS + 0.5) * MODEL_MB * 1e6


def rise_mb(cost: RunCost) -> float:
    """What the ServerApp took beyond what it had before the first update."""
    readings = [each for each in cost.watch.readings["serverapp"] if each.at >= cost.rounds[0].begin]
    return max(each.anonymous_mb for each in readings) - readings[0].anonymous_mb


def most(cost: RunCost, name: str, what: str) -> int:
    """The most that a process held until the end of the first round."""
    first = cost.rounds[0]
    return max(int(getattr(each, what)) for each in cost.watch.readings[name] if each.at <= first.end)


def settled(consortium: ScaleConsortium, cost: RunCost) -> dict[str, Reading]:
    """The processes that outlive a run, once they hold as little as in its first round; at the latest after a minute."""
    deadline, pause = time.monotonic() + 60, threading.Event()
    while True:
        pids = parts_of(consortium.supervisor)
        now = {name: read_process(pid) for name, pid in pids.items() if name != "serverapp"}
        few = all(
            each.descriptors <= most(cost, name, "descriptors")
            and each.threads <= most(cost, name, "threads")
            for name, each in now.items()
        )
        if few or time.monotonic() > deadline:
            return now
        pause.wait(0.5)
