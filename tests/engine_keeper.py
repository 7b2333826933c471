"""Keeps one further container engine for as long as its standard input is open: `engine_kit.py` starts it.

The engine, whatever it starts, its data and its control groups end with this program, and this program ends when the tests do, however
they end: their end of the pipe closes by itself. It never touches the engine of this machine.
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
_PATIENCE_S: Final = 30.0


def keep(command: list[str], log: Path, folders: list[Path], cgroup: str) -> None:
    """Run an engine until the pipe closes or it ends by itself; then nothing of it is left.

    Args:
        command: the engine.
        log: where its words go.
        folders: removed at the end.
        cgroup: the name of the control groups that its containers lie in.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # What an engine starts outlives it and becomes a child of this process, not of init.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with log.open("wb") as words:
        engine = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True
        )
    waiting = select.poll()
    waiting.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    waiting.register(os.pidfd_open(engine.pid), select.POLLIN)
    waiting.poll()
    engine.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        engine.wait(_PATIENCE_S)
    _kill_children()
    for hierarchy in Path("/sys/fs/cgroup").glob(f"*/{cgroup}"):
        _remove_groups(hierarchy)
    _remove_groups(Path("/sys/fs/cgroup", cgroup))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _kill_children() -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    found = []
    for each in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = each.read_text(errors="replace").rpartition(")")
            if int(rest.split()[1]) == os.getpid():
                found.append(int(name.split()[0]))
    return found


def _remove_groups(top: Path) -> None:
    for folder, _folders, _files in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    keep(asked["command"], Path(asked["log"]), [Path(each) for each in asked["folders"]], asked["cgroup"])
