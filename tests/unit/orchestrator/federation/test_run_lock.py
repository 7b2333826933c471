"""One process carries an order: the next one waits for it, and ends one that does not end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.federation.run_lock import hold_run

_HOLD = """
import sys, pathlib
from orchestrator.federation.run_lock import hold_run
with hold_run(pathlib.Path(sys.argv[1]), patience_s=float(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
print("let go", flush=True)
"""


def _holder(folder: Path, patience_s: float) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(folder), str(patience_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


@pytest.mark.timeout(120)
def test_the_next_waits_until_the_one_before_is_gone(tmp_path: Path) -> None:
    first = _holder(tmp_path, 600)
    assert _said(first) == "held"
    second = _holder(tmp_path, 600)
    try:
        assert first.stdin is not None
        first.stdin.close()
        assert _said(first) == "let go"
        assert first.wait() == 0
        assert _said(second) == "held"
    finally:
        first.stdout.close() if first.stdout else None
        _end(second)


@pytest.mark.timeout(120)
def test_one_that_is_frozen_is_ended_and_never_goes_on(tmp_path: Path) -> None:
    frozen = _holder(tmp_path, 600)
    assert _said(frozen) == "held"
    os.kill(frozen.pid, signal.SIGSTOP)
    second = _holder(tmp_path, 0.2)
    try:
        assert _said(second) == "held"
        assert frozen.wait() == -signal.SIGKILL
        frozen.communicate()
    finally:
        _end(second)


def test_a_number_that_is_none_ends_nobody(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("what is this")
    with hold_run(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())
