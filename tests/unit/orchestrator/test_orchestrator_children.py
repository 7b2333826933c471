import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from orchestrator.children import FIRST_WAIT_S, Child, ChildPlan


def _plan(folder: Path, code: str) -> ChildPlan:
    return ChildPlan("test", [sys.executable, "-c", code], folder / "out", dict(os.environ))


def _end(child: Child) -> None:
    assert child.process is not None
    child.process.wait(120)


def test_a_child_that_ends_waits_longer_each_time(tmp_path: Path) -> None:
    now = [0.0]
    child = Child(_plan(tmp_path, "raise SystemExit(3)"), clock=lambda: now[0])
    child.start()
    for wait_s in (FIRST_WAIT_S, FIRST_WAIT_S * 2, FIRST_WAIT_S * 4):
        _end(child)
        restarts = child.restarts
        child.tend()
        assert child.restarts == restarts
        now[0] += wait_s * 0.9
        child.tend()
        assert child.restarts == restarts
        now[0] += wait_s * 0.2
        child.tend()
        assert child.restarts == restarts + 1
    child.stop(5)


def test_a_child_that_ran_long_starts_again_soon(tmp_path: Path) -> None:
    now = [0.0]
    child = Child(_plan(tmp_path, "pass"), clock=lambda: now[0])
    child.start()
    for _ in range(4):
        _end(child)
        child.tend()
        now[0] += 31
        child.tend()
    _end(child)
    now[0] += 100
    child.tend()
    now[0] += FIRST_WAIT_S
    restarts = child.restarts
    child.tend()
    assert child.restarts == restarts + 1
    child.stop(5)


def test_stop_kills_what_does_not_listen_and_what_it_started(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); time.sleep(100)"
    )
    child = Child(_plan(tmp_path, code))
    child.start()
    grandchild = int(_when_written(tmp_path / "pid"))
    child.stop(0.2)
    assert not child.running
    _wait_for_the_end_of(grandchild)


def test_a_child_dies_with_its_supervisor(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from orchestrator.children import Child, ChildPlan;"
        "c = Child(ChildPlan('t', [sys.executable, '-c', 'import time; time.sleep(100)'],"
        f" Path({str(tmp_path / 'out')!r}), dict(os.environ))); c.start();"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(c.process.pid)); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as supervisor:
        child = int(_when_written(tmp_path / "pid"))
        supervisor.send_signal(signal.SIGKILL)
    _wait_for_the_end_of(child)


def _when_written(path: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()):
            return text
        os.sched_yield()
    raise TimeoutError(path.name)


def _wait_for_the_end_of(pid: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        os.sched_yield()
    raise TimeoutError(str(pid))
