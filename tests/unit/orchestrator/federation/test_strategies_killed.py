"""A process killed between what a strategy keeps and the checkpoint goes on as if nothing had been: real SIGKILLs, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import rounds_to_kill

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[4]
RUN = "runs/" + rounds_to_kill.ORDER[7:]


def _life(place: Path, *moment: str) -> int:
    """One life of the process; its exit status."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(HERE)])
    done = subprocess.run(
        [sys.executable, str(HERE / "rounds_to_kill.py"), str(place), *moment],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr.decode()[-2000:]
    return done.returncode


def _weights(place: Path) -> list[str]:
    lines = (place / RUN / "rounds.jsonl").read_text().splitlines()
    return [json.loads(line)["weights"]["digest"] for line in lines]


def _kept(place: Path) -> tuple[int, set[str], set[str]]:
    """The checkpoint's round, the files that it names, and those that are there."""
    folder = place / RUN
    checkpoint: dict[str, Any] = (
        json.loads((folder / "checkpoint.json").read_text()) if (folder / "checkpoint.json").exists() else {}
    )
    named = {blob["digest"][7:] for blob in checkpoint.get("strategy", {}).values()}
    there = {path.name for path in (folder / "strategy").iterdir()}
    return checkpoint.get("round", 0), named, there


def test_killed_at_three_moments_it_ends_with_the_very_same_weights(tmp_path: Path) -> None:
    through, killed = tmp_path / "through", tmp_path / "killed"
    assert _life(through) == 0
    # In the first round: of the new moments one file is there, and nothing names it.
    assert _life(killed, "moments", "1") == -signal.SIGKILL
    round_, named, there = _kept(killed)
    assert (round_, named) == (0, set())
    assert there
    # In the second: everything is there twice, and the checkpoint names the first round's.
    assert _life(killed, "aggregated", "2") == -signal.SIGKILL
    round_, named, there = _kept(killed)
    assert round_ == 1
    assert len(named) == 2
    assert len(there) == 4
    assert named < there
    # In the third: the checkpoint names the third's.
    assert _life(killed, "checkpointed", "3") == -signal.SIGKILL
    round_, named, there = _kept(killed)
    assert round_ == 3
    assert len(there) == 4
    assert named < there
    assert _life(killed) == 0
    assert _weights(killed) == _weights(through)
    assert len(set(_weights(through))) == rounds_to_kill.ROUNDS
    for place in (through, killed):
        assert _kept(place)[2] == set()
