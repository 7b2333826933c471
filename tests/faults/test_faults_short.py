"""The fault test in its short form: one seed, one fault of each family, on every run of the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.programs import environment
from tests.faults.schedule import draw, told
from tests.faults.topology import STATIONS

SEED = 2
FAULTS = 8


def test_equal_seeds_give_equal_schedules() -> None:
    first, again, other = (list(told(draw(seed, 60, "long", STATIONS))) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_every_kind_of_fault_comes_where_there_is_room() -> None:
    kinds = [fault.kind for event in draw(3, 200, "long", STATIONS) for fault in event.faults]
    assert len(kinds) == 200
    assert {kind.split(" ")[0] for kind in kinds} == {"kill", "cut", "fill", "clock", "freeze"}
    assert all(
        kinds.count(f"kill {who}") for who in ("serverapp", "superlink", "front", "container", "engine")
    )


@pytest.mark.e2e
@pytest.mark.docker
@pytest.mark.superlink
@pytest.mark.timeout(900)
def test_runs_go_on_by_themselves_and_nothing_is_lost_or_doubled() -> None:
    if os.geteuid() != 0:
        pytest.skip("the fault test makes namespaces and mounts: run it as root")
    command = [sys.executable, "-m", "tests.faults.run", "--form", "short"]
    done = subprocess.run(
        [*command, "--seed", str(SEED), "--faults", str(FAULTS)],
        cwd=Path(__file__).resolve().parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        check=False,
    )
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:]
    assert done.stdout.rstrip().endswith("nothing lost, nothing doubled")
