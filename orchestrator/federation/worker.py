"""The run worker: takes accepted orders, gives each a Flower run and a ServerApp process, and keeps both alive.

It plays the part of Flower's own executor: starts a run, claims its ServerApp task, keeps the token in a 0600 file,
starts the process. A process that dies is started again with the same token while the 60 s lease lasts; after that,
or when the SuperLink has forgotten the task, a new Flower run carries the same order on from its checkpoint. A
SuperLink that is down is waited for. Runs that are not ours are stopped, never carried.

While a ServerApp process lives it alone writes the order's state; the worker writes before and after.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orchestrator
from orchestrator.federation.flower import Control
from orchestrator.federation.orders import ORDER_EXPIRED, SUPERLINK_DOWN, FolderQueue, RunFolder
from orchestrator.federation.people import waits_for_people
from orchestrator.federation.places import Limits
from orchestrator.federation.run_documents import AcceptedOrder, RunProgress, RunState
from orchestrator.federation.server_app import Ending, Task
from orchestrator.federation.superlink import flower_environment
from orchestrator.federation.tasks import Address, ClaimedTask, SuperLinkDownError, SuperLinkRefusedError
from policies.errors import PhtError, StateError, StorageError

log = logging.getLogger(__name__)

DEFAULT_LIMITS = Limits(parallel_runs=4, runs_per_station=2)
MAX_RESTARTS = 8
"""Deaths of a ServerApp in a row, without a round between them, after which its order fails."""
STUCK_S = 180.0
"""A ServerApp that says nothing for so long is ended, as if it had died."""
_STORAGE_PAUSE_S = 2.0
_LOOK_S = 0.25
_EXPIRED_SLACK_S = 60.0
"""Beyond an order's expiry, in which its ServerApp ends it itself."""
_TERMINATE_S = 15.0


@dataclass(frozen=True, slots=True)
class WorkerFiles:
    """Folders the worker and its processes use."""

    runs: Path
    blobs: Path
    superlink: Path


class RunWorker:
    """Carries accepted orders until `stop`."""

    def __init__(
        self,
        queue: FolderQueue,
        files: WorkerFiles,
        address: Address,
        secret: bytes,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._queue = queue
        self._limits = limits
        self._files = files
        self._address = address
        self._control = Control(address, secret)
        self._claiming = threading.Lock()
        self._stopping = threading.Event()
        self._carriers: list[threading.Thread] = []
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._main: threading.Thread | None = None

    def start(self) -> None:
        """Take orders in a thread of its own until `stop`."""
        self._main = threading.Thread(target=self._take_orders, name="run-worker", daemon=True)
        self._main.start()

    def stop(self, timeout_s: float = 15.0) -> None:
        """End the processes; their orders go on at the next start."""
        self._stopping.set()
        for process in list(self._processes.values()):
            process.terminate()
        for thread in [*([self._main] if self._main else []), *self._carriers]:
            thread.join(timeout_s)
        self._control.close()

    def server_app_pid(self, order_digest: str) -> int | None:
        """The ServerApp process that carries an order now."""
        process = self._processes.get(order_digest)
        return process.pid if process is not None and process.poll() is None else None

    def is_alive(self) -> bool:
        """Whether orders are still taken; whoever started this ends with it."""
        return self._main is not None and self._main.is_alive()

    def _take_orders(self) -> None:
        while not self._stopping.is_set():
            self._carriers = [thread for thread in self._carriers if thread.is_alive()]
            self._take_one()
            self._stopping.wait(_LOOK_S)

    def _take_one(self) -> None:
        try:
            self._queue.beat()
            accepted = self._queue.next_order(self._limits, waits_for_people)
        except (PhtError, OSError) as error:
            log.error("queue_not_read", extra={"reason": _reason(error)})  # noqa: TRY400
            return
        if accepted is None:
            return
        thread = threading.Thread(target=self._carry, args=(accepted,), name="carry-order", daemon=True)
        self._carriers.append(thread)
        thread.start()

    def _carry(self, accepted: AcceptedOrder) -> None:
        """Keep one order carried until it is over, or this worker stops; its place is free then, whatever happened.

        A full disk is no fault of the order's, nor a SuperLink that is away: it goes on when they are back, until the order expires.
        """
        folder = self._queue.folder(accepted.order_digest)
        deaths, rounds = 0, -1
        try:
            while not self._stopping.is_set():
                pause_s = _STORAGE_PAUSE_S
                try:
                    if self._ended(folder, accepted):
                        return
                    ending = self._carry_once(folder, accepted)
                    if ending is None:
                        return
                    if ending is Ending.FAULT:
                        done = folder.rounds.count()
                        deaths = deaths + 1 if done == rounds else 1
                        rounds = done
                    if ending is not Ending.STORAGE:
                        pause_s = min(0.1 * 2**deaths, 10.0)
                    if deaths > MAX_RESTARTS:
                        self._abandon(folder)
                        self._report(folder, state=RunState.FAILED, code="SERVERAPP_CRASHED", stage="")
                        return
                except SuperLinkDownError:
                    pause_s = 1.0
                    self._say_superlink_is_down(folder)
                except (StorageError, OSError) as error:
                    log.warning("order_waits_for_the_disk", extra={"reason": _reason(error)})
                self._stopping.wait(pause_s)
        finally:
            self._queue.let_go(accepted.order_digest)

    def _ended(self, folder: RunFolder, accepted: AcceptedOrder) -> bool:
        """Whether nothing is left to carry: it is over, somebody asked to stop it, or its time is over."""
        if self._is_over(folder):
            folder.task.unlink(missing_ok=True)
            return True
        if folder.stop_wanted():
            ending: dict[str, object] = {"state": RunState.STOPPED}
        elif datetime.now(UTC) >= accepted.order.expires:
            ending = {"state": RunState.FAILED, "code": ORDER_EXPIRED}
        else:
            return False
        # Its end is said last: from then on it can be resumed, and whatever is done here would be done to its next life.
        self._abandon(folder)
        self._report(folder, **ending, stage="", waiting="")
        return True

    def _is_over(self, folder: RunFolder) -> bool:
        try:
            return folder.read_progress().state.is_over
        except StateError:
            # Nobody else writes it now: what is damaged is written anew from what the order says.
            log.error("state_damaged", extra={"order": folder.path.name})  # noqa: TRY400
            folder.write_progress(RunProgress(rounds=folder.read_order().order.rounds))
            return False

    def _say_superlink_is_down(self, folder: RunFolder) -> None:
        try:
            if folder.read_progress().waiting != SUPERLINK_DOWN:
                self._report(folder, waiting=SUPERLINK_DOWN)
        except (PhtError, OSError) as error:
            log.warning("state_not_written", extra={"reason": _reason(error)})

    def _carry_once(self, folder: RunFolder, accepted: AcceptedOrder) -> Ending | None:
        """Let one process carry the order as far as it goes; how it ended, or None where nothing is left to do here."""
        try:
            if Task.read(folder) is None:
                self._claim(folder)
            ending = self._run_process(folder, accepted)
            return None if self._settle(folder, ending) else ending
        except (SuperLinkRefusedError, StateError) as error:
            log.error("order_not_carried", extra={"reason": error.message})  # noqa: TRY400
            return Ending.FAULT

    def _settle(self, folder: RunFolder, ending: Ending) -> bool:
        """Draw the conclusion from how a process ended; whether the order is over."""
        progress = folder.read_progress()
        if progress.state.is_over:
            # Whatever became of the process after it had written that.
            folder.task.unlink(missing_ok=True)
            return True
        if ending is Ending.TOLD_TO_END and self._stopping.is_set():
            return True
        if ending is Ending.LEASE_LOST:
            log.warning("lease_lost")
            self._abandon(folder)
        self._report(folder, restarts=progress.restarts + 1)
        return False

    def _claim(self, folder: RunFolder) -> None:
        """Start a Flower run for the order and claim its task."""
        with self._claiming:
            run_id = self._control.start_run()
            task = self._claimed(run_id)
        try:
            Task(task.task_id, task.run_id, task.token, started=False).write(folder)
        except StorageError:
            # Nobody can carry a run whose token is lost.
            self._control.stop_run(run_id)
            raise
        progress = folder.read_progress()
        self._report(
            folder,
            state=RunState.RUNNING,
            flower_run=run_id,
            flower_runs=progress.flower_runs + 1,
            code="",
            waiting="",
        )
        log.info("flower_run_started")

    def _claimed(self, run_id: int) -> ClaimedTask:
        while True:
            task = self._control.claim_task()
            if task is None:
                raise SuperLinkDownError("the SuperLink has no task for the run it started")
            if task.run_id == run_id:
                return task
            # Left by a crash between start and claim, or started by someone else: nothing of ours needs it.
            log.warning("foreign_run_stopped")
            self._control.stop_run(task.run_id)

    def _abandon(self, folder: RunFolder) -> None:
        """Give up the order's Flower run; the next round of the loop starts another one."""
        task = Task.read(folder)
        folder.task.unlink(missing_ok=True)
        if task is None:
            return
        try:
            self._control.stop_run(task.run_id)
        except SuperLinkDownError:
            log.warning("run_not_stopped")

    def _run_process(self, folder: RunFolder, accepted: AcceptedOrder) -> Ending:
        command = [
            sys.executable,
            "-m",
            "orchestrator.federation",
            "--run-folder",
            str(folder.path),
            "--blobs",
            str(self._files.blobs),
            "--host",
            self._address.host,
            "--port",
            str(self._address.port),
            "--ca",
            str(self._address.ca_path),
        ]
        environment = flower_environment(self._files.superlink) | {"PYTHONPATH": _import_path()}
        with (folder.path / "serverapp.log").open("ab") as output:
            # Its standard input stays open as long as this process lives: that is how it notices our end.
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        self._processes[folder.order_digest] = process
        if self._stopping.is_set():
            process.terminate()
        code = self._outlive(process, folder, accepted)
        if process.stdin is not None:
            process.stdin.close()
        self._processes.pop(folder.order_digest, None)
        try:
            return Ending(code)
        except ValueError:
            return Ending.FAULT

    def _outlive(self, process: "subprocess.Popen[bytes]", folder: RunFolder, accepted: AcceptedOrder) -> int:
        """Wait for a process's end, and see to it that there is one: its order expires, and one that is stuck is killed."""
        heard, heard_at = folder.beaten_at(), time.monotonic()
        told_at: float | None = None
        while True:
            try:
                return process.wait(1.0)
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            if (beaten := folder.beaten_at()) != heard:
                heard, heard_at = beaten, now
            late = datetime.now(UTC) >= accepted.order.expires + timedelta(seconds=_EXPIRED_SLACK_S)
            if late and told_at is None:
                told_at = now
                process.terminate()
            if now - heard_at > STUCK_S or (told_at is not None and now - told_at > _TERMINATE_S):
                log.error("serverapp_stuck", extra={"order": folder.path.name})
                process.kill()

    def _report(self, folder: RunFolder, **changes: object) -> None:
        self._queue.report(folder.order_digest, folder.read_progress().model_copy(update=changes))


def _reason(error: PhtError | OSError) -> str:
    return error.message if isinstance(error, PhtError) else type(error).__name__


def _import_path() -> str:
    own = str(Path(orchestrator.__file__).parent.parent)
    given = os.environ.get("PYTHONPATH", "")  # an interpreter's variable, not a setting of ours
    return os.pathsep.join([own, *([given] if given else [])])
