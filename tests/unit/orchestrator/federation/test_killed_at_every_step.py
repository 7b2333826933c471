"""SIGKILL to a ServerApp before each of its durable steps: the next one ends the run as if nothing had happened."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from killed_server_app import RecordingWorld

from orchestrator.federation.orders import RunFolder, RunState
from orchestrator.federation.server_app import Ending, Task

TIMES = ("wall_s", "overhead_s", "aggregate_s", "deadlines", "late")


class Lives:
    """The process that forks a ServerApp for each life."""

    def __init__(self) -> None:
        here = Path(__file__).parent
        path = os.pathsep.join([str(here.parents[3]), str(here), str(here.parents[2])])
        self.process = subprocess.Popen(
            [sys.executable, str(here / "killed_server_app.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip

    def live(self, base: Path, kill_at: int = 0) -> dict[str, int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{base} {kill_at}\n")
        self.process.stdin.flush()
        found: dict[str, int] = json.loads(self.process.stdout.readline())
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    found = Lives()
    yield found
    found.close()


def _order(base: Path, strategy: dict[str, Any]) -> RunFolder:
    (base / "stations").mkdir(parents=True)
    folder = RecordingWorld(base).accept(strategy=strategy, minimum_stations=3)
    Task(1, 1, "token", started=True).write(folder)
    return folder


def _what_came_of_it(base: Path, folder: RunFolder) -> dict[str, Any]:
    assert folder.read_progress().state is RunState.FINISHED
    rounds = [
        {key: value for key, value in entry.items() if key not in TIMES} for entry in folder.read_rounds()
    ]
    return {
        "rounds": rounds,
        "blobs": sorted(path.name for path in (base / "blobs" / "sha256").iterdir()),
        "updates": list((base / "blobs").glob("updates/*/*/*")),
        "replies": folder.replies.exists(),
        "asked": sorted(path.name for path in (base / "stations").iterdir()),
        "strategy": sorted(path.name for path in folder.path.glob("strategy/*")),
    }


# Keeps moments from round to round, which must not be taken up twice either.
MOMENTUM = {"name": "FedAvgM", "parameters": {"server_momentum": 0.9}}


def test_killed_before_any_durable_step_a_run_ends_as_if_nothing_had_happened(
    tmp_path: Path, lives: Lives
) -> None:
    folder = _order(tmp_path / "whole", MOMENTUM)
    whole = lives.live(tmp_path / "whole")
    assert whole["code"] == Ending.FINISHED
    expected = _what_came_of_it(tmp_path / "whole", folder)
    assert [entry["took_part"] for entry in expected["rounds"]] == [["amstel", "berkel", "dommel"]] * 2
    assert whole["steps"] > 40
    for step in range(1, whole["steps"] + 1):
        base = tmp_path / f"killed-{step}"
        folder = _order(base, MOMENTUM)
        assert lives.live(base, step)["code"] == -9, step
        assert lives.live(base)["code"] == Ending.FINISHED, step
        assert _what_came_of_it(base, folder) == expected, step
        shutil.rmtree(base)


def test_killed_again_and_again_a_run_still_ends(tmp_path: Path, lives: Lives) -> None:
    """Each life gets a few steps further than the one before, or less far."""
    folder = _order(tmp_path / "whole", MOMENTUM)
    lives.live(tmp_path / "whole")
    expected = _what_came_of_it(tmp_path / "whole", folder)
    folder = _order(tmp_path / "killed", MOMENTUM)
    ended = [lives.live(tmp_path / "killed", step)["code"] for step in (9, 30, 17, 41, 25)]
    assert ended[0] == -9
    while lives.live(tmp_path / "killed")["code"] != Ending.FINISHED:
        pass
    assert _what_came_of_it(tmp_path / "killed", folder) == expected
