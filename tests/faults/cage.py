"""Namespaces of their own for a fault test: its processes, networks and mounts are nobody else's, and end with it, however it ends.

The test runs in new PID, network and mount namespaces. Its first process there takes the place of init: it reaps what others
leave behind. When the test ends or is killed, the kernel ends everything in it; folders and control groups are removed from outside.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

ROOM = Path(os.environ.get("PHT_ENGINES", "/var/lib/pht-engines"))


def run_caged(module: str, arguments: Sequence[str], *, keep: Path | None = None) -> int:
    """Run a module of ours in namespaces of its own, with a scratch folder as its first arguments; returns its exit code.

    Args:
        module: run as ``python -m``, with ``--inside SCRATCH DATA CGROUP`` before the arguments.
        arguments: the rest.
        keep: where logs and small files go when it did not end well.
    """
    if os.geteuid() != 0:
        sys.exit("the fault test makes namespaces and mounts: run it as root")
    name = f"pht-faults-{secrets.token_hex(4)}"
    scratch = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/tmp"))
    # Each station's services run under users of their own and have to get at their folder.
    scratch.chmod(0o755)
    ROOM.mkdir(parents=True, exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=ROOM))
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += ["--propagation", "private", sys.executable, "-u", "-m", module]
    command += ["--inside", str(scratch), str(data), name, *arguments]
    process = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2])

    def end(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, end)
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()
        if keep is not None and process.returncode:
            _keep(scratch / "kept", keep)
        _remove_groups(name)
        for folder in (scratch, data):
            shutil.rmtree(folder, ignore_errors=True)


def _remove_groups(name: str) -> None:
    """Remove the control groups; what was killed with the cage may take a moment to leave them."""
    end_at = time.monotonic() + 30.0
    while tops := [*Path("/sys/fs/cgroup").glob(f"*/{name}"), *Path("/sys/fs/cgroup").glob(name)]:
        for top in tops:
            for folder, _folders, _files in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        if time.monotonic() > end_at:
            return
        time.sleep(0.1)


def _keep(kept: Path, place: Path) -> None:
    if kept.is_dir():
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(kept, place)


def as_init(work: Callable[[], int]) -> int:
    """Do the work in a child and be its init meanwhile: reap every process that lost its parent."""
    worker = os.fork()
    if worker == 0:
        os._exit(_guarded(work))
    while True:
        pid, status = os.wait()
        if pid == worker:
            return os.waitstatus_to_exitcode(status)


def _guarded(work: Callable[[], int]) -> int:
    try:
        return work()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - the outermost boundary
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
