"""The tests' own engines: they end with the tests, however these end, and leave this machine as it was."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from engine_kit import ROOM, engine_room

from station.sandbox import unix

pytestmark = pytest.mark.docker

START = """
import pathlib, sys, threading
sys.path.insert(0, sys.argv[2])
from engine_kit import engine_room
with engine_room(pathlib.Path(sys.argv[1])) as room:
    print(room.engine("docker-gvisor").socket, flush=True)
    threading.Event().wait()
"""


def processes_with(text: str) -> list[int]:
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in each.read_bytes() and int(each.parent.name) != os.getpid():
                found.append(int(each.parent.name))
        except OSError:
            pass
    return found


def bridges() -> set[str]:
    return {each.name for each in Path("/sys/class/net").iterdir() if (each / "bridge").exists()}


def test_an_engine_ends_when_the_tests_are_killed(tmp_path: Path) -> None:
    here, networks = str(Path(__file__).parents[2]), bridges()
    tests = subprocess.Popen(
        [sys.executable, "-c", START, str(tmp_path), here],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(here).parent,
    )
    assert tests.stdout is not None
    listening = Path(tests.stdout.readline().strip())
    unix.connect(listening, timeout_s=5).close()
    assert processes_with(str(tmp_path / "newer-docker"))
    # A Docker that is to have no bridge removes the one it sees.
    assert bridges() == networks
    tests.send_signal(signal.SIGKILL)
    tests.wait(60)
    tests.stdout.close()
    deadline, pause = time.monotonic() + 120, threading.Event()
    while processes_with(str(tmp_path / "newer-docker")):
        assert time.monotonic() < deadline
        pause.wait(0.05)
    with pytest.raises(OSError, match=r"refused|No such file"):
        unix.connect(listening, timeout_s=5)


def test_an_engine_leaves_nothing(tmp_path: Path) -> None:
    with engine_room(tmp_path) as room:
        first = room.engine("docker-containerd")
        assert room.engine("docker-gvisor").socket == first.socket
        assert room.engine("docker-gvisor").runtime == "runsc"
        (data,) = [
            each for each in ROOM.glob("pht-engine-*") if str(each.name)[:23] in first_config(tmp_path)
        ]
        assert data.name not in Path("/proc/self/mountinfo").read_text()
    assert not data.exists()
    assert not processes_with(str(tmp_path / "newer-docker"))
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{data.name[:23]}"))


def first_config(place: Path) -> str:
    return (place / "newer-docker" / "daemon.json").read_text()
