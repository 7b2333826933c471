"""The run worker as a process: ``python -m orchestrator.run_worker HOME``; started by the supervisor.

Carries accepted orders (`orchestrator.federation.worker`), deletes single updates of orders that are over, and writes the
result of each run that ended. A run that
ended while nothing was watching gets its result at the next start.
"""

import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path

from orchestrator.federation.orders import FolderQueue, RunFolder
from orchestrator.federation.places import Limits
from orchestrator.federation.ports import LOOPBACK
from orchestrator.federation.superlink import SuperLinkFiles
from orchestrator.federation.tasks import Address
from orchestrator.federation.updates import sweep_updates
from orchestrator.federation.worker import RunWorker, WorkerFiles
from orchestrator.logs import start_logging
from orchestrator.registry.superlink_port import read_superlink_port
from orchestrator.results.folder import name_of_end, wants_result
from orchestrator.settings import Home, child_environment, load_settings
from policies.errors import ExitCode, PhtError, StateError

_LOG = logging.getLogger(__name__)

LOOK_S = 0.5
RESULT_TIMEOUT_S = 300.0
MAX_RESULT_TRIES = 3


def main() -> int:
    """Run until told to stop."""
    home = Home(Path(sys.argv[1]))
    start_logging(home.logs, "worker")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        _run(home, stopping)
    except PhtError as error:
        sys.stderr.write(f"worker: {error.message}\n")
        return int(error.exit_code)
    return int(ExitCode.OK)


def _run(home: Home, stopping: threading.Event) -> None:
    files = SuperLinkFiles(home.superlink)
    queue = FolderQueue(home.runs)
    address = Address(LOOPBACK, read_superlink_port(home), files.ca)
    limits = load_settings(home).limits
    worker = RunWorker(
        queue,
        WorkerFiles(home.runs, home.blobs, home.superlink),
        address,
        files.secret.read_bytes(),
        Limits(limits.parallel_runs, limits.runs_per_station),
    )
    worker.start()
    # By the run and its end: one that goes on ends again, and gives something else.
    tries: dict[tuple[Path, str], int] = {}
    try:
        while not stopping.wait(LOOK_S):
            # Every single update of what is over goes: also those that came late, or before this start.
            sweep_updates(queue, home.blobs)
            if not worker.is_alive():
                # The supervisor starts another one.
                raise StateError("the worker takes no orders any more")
            for folder in queue.folders():
                end = _end_without_result(folder)
                if end is not None and tries.get((folder.path, end), 0) < MAX_RESULT_TRIES:
                    tries[folder.path, end] = tries.get((folder.path, end), 0) + 1
                    _write_result(home, folder.path)
    finally:
        worker.stop()


def _end_without_result(folder: RunFolder) -> str | None:
    try:
        return name_of_end(folder.read_progress()) if wants_result(folder.path) else None
    except StateError as error:
        _LOG.error("run_damaged", extra={"order": folder.path.name, "code": type(error).__name__})
        return None


def _write_result(home: Home, folder: Path) -> None:
    # A process of its own: what draws pictures needs much memory, for a moment.
    command = [sys.executable, "-m", "orchestrator.results", str(home.path), folder.name]
    try:
        subprocess.run(command, check=True, timeout=RESULT_TIMEOUT_S, env=child_environment())
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        _LOG.error("result_failed", extra={"order": folder.name, "kind": type(error).__name__})
    else:
        _LOG.info("result_written", extra={"order": folder.name})


if __name__ == "__main__":
    sys.exit(main())
