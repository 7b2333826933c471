"""`make test` runs its stages in two lines: neither waits for the other, what fails is said, what runs is stopped, and the exit code is right."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parents[2] / ".ci"
WAITS_S = 240

PASSES = "def test_it():\n    assert True\n"
RUNS = "import pathlib\n\ndef test_it():\n    pathlib.Path(__file__).with_suffix('.ran').write_text('')\n"
WAITS = """
import pathlib, time

def test_it():
    until = time.monotonic() + 200
    while not pathlib.Path("d/test_stage_d.ran").exists():
        assert time.monotonic() < until, "the last stage waits for the first one"
        time.sleep(0.05)
"""
FAILS = "def test_it():\n    assert 1 == 2, 'the reason of the failure'\n"
HANGS = """
import pathlib, subprocess, sys, threading
import pytest

@pytest.fixture
def program():
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pathlib.Path(__file__).with_suffix(".pid").write_text(str(started.pid))
    yield
    pathlib.Path(__file__).with_suffix(".down").write_text("taken down")

def test_it(program):
    pathlib.Path(__file__).with_suffix(".runs").write_text("")
    threading.Event().wait()
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / ".ci").mkdir()
    for name in ("stage", "lines.py"):
        shutil.copy(CI / name, tmp_path / ".ci" / name)
    return tmp_path


def start(checkout: Path, stages: dict[str, str], one_line: str) -> subprocess.Popen[str]:
    """Start the stages a, b, c and d, whose tests say what they are told to."""
    for name, text in stages.items():
        (checkout / name).mkdir()
        (checkout / name / f"test_stage_{name}.py").write_text(text)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")},
        "TMPDIR": str(checkout),
        "PHT_ONE_LINE": one_line,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    return subprocess.Popen(
        [sys.executable, ".ci/lines.py", "a=a", "b=b", "c=c", "d=d"],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stages_that_ran(checkout: Path) -> set[str]:
    (notes,) = checkout.glob("pht-stages-*")
    return {line.split()[0] for line in notes.read_text().splitlines()}


def wait_for(*files: Path) -> None:
    until = time.monotonic() + WAITS_S
    while not all(file.exists() for file in files):
        assert time.monotonic() < until, "the stages did not begin"
        time.sleep(0.05)


def lives(pid: int) -> bool:
    """Whether a process is there and runs (not a zombie that waits for its parent)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_failed_stage_stops_no_other_and_the_whole_fails(checkout: Path) -> None:
    run = start(checkout, {"a": FAILS, "b": PASSES, "c": PASSES, "d": PASSES}, one_line="0")
    said, _ = run.communicate(timeout=WAITS_S)
    assert run.returncode == 1, said
    assert stages_that_ran(checkout) == {"a", "b", "c", "d"}
    assert "d | 1 passed" in said
    assert "the reason of the failure" in said.split("===== the end of a, which failed (exit 1) =====")[1]


def test_without_a_failure_all_stages_run_and_the_exit_code_is_0(checkout: Path) -> None:
    run = start(checkout, dict.fromkeys("abcd", PASSES), one_line="0")
    said, _ = run.communicate(timeout=WAITS_S)
    assert run.returncode == 0, said
    assert stages_that_ran(checkout) == {"a", "b", "c", "d"}


@pytest.mark.parametrize("slow", ["a", "b"])
def test_the_line_that_is_free_takes_what_waits(checkout: Path, slow: str) -> None:
    run = start(checkout, {**dict.fromkeys("abc", PASSES), "d": RUNS, slow: WAITS}, one_line="0")
    said, _ = run.communicate(timeout=WAITS_S)
    # That the slow one passed says that it still ran when the last one did; whose last line comes first is chance.
    assert run.returncode == 0, said
    assert said.index("c | 1 passed") < said.index("d | 1 passed")
    assert f"{slow} | 1 passed" in said


def test_in_one_line_nothing_runs_after_the_failure(checkout: Path) -> None:
    run = start(checkout, {"a": PASSES, "b": FAILS, "c": PASSES, "d": PASSES}, one_line="1")
    said, _ = run.communicate(timeout=WAITS_S)
    assert run.returncode == 1
    assert stages_that_ran(checkout) == {"a", "b"}
    assert " | " not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_both_lines_with_all_that_they_started(checkout: Path, number: signal.Signals) -> None:
    run = start(checkout, {"a": HANGS, "b": HANGS, "c": PASSES, "d": PASSES}, one_line="0")
    files = [checkout / stage / f"test_stage_{stage}.py" for stage in "ab"]
    wait_for(*(file.with_suffix(".runs") for file in files))
    run.send_signal(number)
    said, _ = run.communicate(timeout=WAITS_S)
    assert run.returncode == 128 + number, said
    assert all(file.with_suffix(".down").exists() for file in files), (
        "a test was not let take down what it had"
    )
    assert not any(lives(int(file.with_suffix(".pid").read_text())) for file in files)
    assert not {"c", "d"} & stages_that_ran(checkout)
