"""The ServerApp of every run, and the process that the run worker starts for it.

`app` is an ordinary Flower ServerApp: the bundle (FAB) of a run holds nothing but its name. The process takes a
claimed task from the run's folder, starts it or goes on with it, keeps its lease, drives the order's rounds, and
says by its exit code how that ended. It ends with the run worker: its standard input closes.
"""

import argparse
import errno
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from orchestrator.federation.exchange import Exchange, StoppedError
from orchestrator.federation.flower import OrderGrid
from orchestrator.federation.orders import SUPERLINK_DOWN, RunFolder, RunState
from orchestrator.federation.rounds import Rounds, RunFailedError
from orchestrator.federation.run_lock import hold_run
from orchestrator.federation.superlink import SuperLinkFiles
from orchestrator.federation.tasks import Address, LeaseLostError, SuperLinkDownError
from policies.blobs import BlobFolder
from policies.errors import PhtError, StateError, StorageError

log = logging.getLogger(__name__)

ALIVE_S = 1.0
HEARTBEAT_S = 10.0
"""Flower's lease is 60 s from the last heartbeat."""
HUNG_S = 900.0
"""A thread that used no processor for so long waits for what does not come. The one that drives the rounds looks for replies every
two seconds at most, and its longest single waits, for an answer of the SuperLink or for the disk, take a minute or two."""

app = ServerApp()


class Ending(IntEnum):
    """Exit codes of the process."""

    FINISHED = 0
    FAULT = 1
    FAILED = 3
    STOPPED = 4
    LEASE_LOST = 75
    TOLD_TO_END = 76
    STORAGE = 77


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Drive the order whose folder the run's configuration names."""
    folder = RunFolder(Path(str(context.run_config["run-folder"])))
    stop = _STOPS.setdefault(str(folder.path), threading.Event())
    exchange = Exchange(grid, folder.read_order().nodes, stop)
    Rounds(folder, BlobFolder(Path(str(context.run_config["blobs"]))), exchange).run()


_STOPS: dict[str, threading.Event] = {}
"""The stop event of each run folder in this process: Flower's call has no room for it."""


@dataclass(frozen=True, slots=True)
class Task:
    """A claimed task as it lies in the run's folder."""

    task_id: int
    run_id: int
    token: str
    started: bool

    @classmethod
    def read(cls, folder: RunFolder) -> "Task | None":
        """Read it; None where there is none, or what is there is not one."""
        value = folder.read_json(folder.task.name)
        if value is None:
            return None
        try:
            return cls(
                int(value["task_id"]), int(value["run_id"]), str(value["token"]), bool(value["started"])
            )
        except (KeyError, TypeError, ValueError):
            return None

    def write(self, folder: RunFolder) -> None:
        """Store it, readable by this user only: the token speaks for the run."""
        value = {"task_id": self.task_id, "run_id": self.run_id, "token": self.token, "started": self.started}
        folder.write_json(folder.task.name, value, private=True)


@dataclass(slots=True)
class _Life:
    """What ends the process early, and why."""

    stop: threading.Event
    ending: Ending | None = None

    def end(self, ending: Ending) -> None:
        if self.ending is None:
            self.ending = ending
        self.stop.set()


class Movement:
    """Whether a thread goes on: by the processor time that it uses, whatever it is at."""

    def __init__(self, thread_id: int, now: Callable[[], float] = time.monotonic) -> None:
        # While the thread lives; the clock of one that ended only says so.
        self._clock, self._now = time.pthread_getcpuclockid(thread_id), now
        self._used, self._moved_at = -1, now()

    def goes_on(self) -> bool:
        """Whether it used the processor since it was last asked, or not so long ago."""
        now = self._now()
        with suppress(OSError):
            used = time.clock_gettime_ns(self._clock)
            if used != self._used:
                self._used, self._moved_at = used, now
        return now - self._moved_at < HUNG_S


def carry(folder: RunFolder, blobs: Path, address: Address) -> Ending:
    """Carry an order as far as it goes in this process.

    Raises:
        StateError: there is no claimed task.
    """
    task = Task.read(folder)
    if task is None:
        raise StateError("there is no claimed task in the run's folder")
    life = _Life(_STOPS.setdefault(str(folder.path), threading.Event()))
    _listen_for_the_end(life)
    grid = OrderGrid(address, task.token, SuperLinkFiles(address.ca_path.parents[1]).doorbells)
    movement = Movement(threading.get_ident())
    threading.Thread(target=_say_alive, args=(folder, life, movement), name="alive", daemon=True).start()
    try:
        _take_task(grid, task, folder, life)
        beat = threading.Thread(target=_beat, args=(grid, folder, life), name="heartbeat", daemon=True)
        beat.start()
        context = Context(
            run_id=task.run_id,
            node_id=1,
            node_config={},
            state=RecordDict(),
            run_config={"run-folder": str(folder.path), "blobs": str(blobs)},
        )
        ending = _run_app(grid, context, folder, life)
    except LeaseLostError:
        ending = Ending.LEASE_LOST
    except StoppedError:
        ending = life.ending or Ending.TOLD_TO_END
    finally:
        life.stop.set()
    if ending not in {Ending.LEASE_LOST, Ending.TOLD_TO_END}:
        _finish_task(grid, completed=ending is Ending.FINISHED)
    grid.close()
    return ending


def _run_app(grid: OrderGrid, context: Context, folder: RunFolder, life: _Life) -> Ending:
    try:
        app(grid=grid, context=context)
    except RunFailedError as error:
        _write_ending(folder, RunState.FAILED, error.message)
        return Ending.FAILED
    except StoppedError:
        if life.ending is Ending.STOPPED:
            _write_ending(folder, RunState.STOPPED, "")
        raise
    return Ending.FINISHED


def _say_alive(folder: RunFolder, life: _Life, movement: Movement) -> None:
    """From the first moment, also while the SuperLink is away: who reads the order's state knows whether anybody carries it.

    Not while the thread that carries it hangs: the worker ends this process then.
    """
    while True:
        if movement.goes_on():
            with suppress(OSError):
                folder.beat()
        if life.stop.wait(ALIVE_S):
            return


def _take_task(grid: OrderGrid, task: Task, folder: RunFolder, life: _Life) -> None:
    while True:
        try:
            if task.started:
                grid.resume_task(task.task_id, task.run_id)
                grid.heartbeat()
            else:
                grid.start_task()
                Task(task.task_id, task.run_id, task.token, started=True).write(folder)
        except SuperLinkDownError as error:
            log.warning("superlink_down", extra={"reason": error.message})
            progress = folder.read_progress()
            if progress.waiting != SUPERLINK_DOWN:
                folder.write_progress(progress.model_copy(update={"waiting": SUPERLINK_DOWN}))
            if life.stop.wait(0.5):
                raise StoppedError from None
        else:
            return


def _beat(grid: OrderGrid, folder: RunFolder, life: _Life) -> None:
    beat_at = time.monotonic() + HEARTBEAT_S
    while not life.stop.wait(0.5):
        if folder.stop_wanted():
            life.end(Ending.STOPPED)
        if time.monotonic() < beat_at:
            continue
        try:
            grid.heartbeat()
        except SuperLinkDownError:
            beat_at = time.monotonic() + 1.0
        except LeaseLostError:
            life.end(Ending.LEASE_LOST)
        else:
            beat_at = time.monotonic() + HEARTBEAT_S


def _finish_task(grid: OrderGrid, *, completed: bool) -> None:
    for _ in range(20):
        try:
            grid.finish_task(completed=completed)
        except SuperLinkDownError:
            time.sleep(0.5)
        except LeaseLostError:
            return
        else:
            return


def _write_ending(folder: RunFolder, state: RunState, code: str) -> None:
    folder.write_progress(
        folder.read_progress().model_copy(
            update={
                "state": state,
                "code": code,
                "stage": "",
                "waiting": "",
                "reviewing": {},
                "looked_at": None,
            }
        )
    )


def _listen_for_the_end(life: _Life) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, lambda *_: life.end(Ending.TOLD_TO_END))
    signal.signal(signal.SIGINT, lambda *_: life.end(Ending.TOLD_TO_END))

    def wait_for_parent() -> None:
        # Past Python's buffer, whose lock a daemon thread would hold at the interpreter's end.
        while os.read(0, 1):
            pass
        life.end(Ending.TOLD_TO_END)

    threading.Thread(target=wait_for_parent, name="parent", daemon=True).start()


class _JsonLines(logging.Formatter):
    """Constant event names and our own fields, one JSON object per line."""

    _FIELDS = ("reason", "round", "took_part", "station", "flower_code")

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": record.created,
            "level": record.levelname,
            "event": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in self._FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
        return json.dumps(line)


def run_process(arguments: list[str] | None = None) -> int:
    """Entry of the process: ``python -m orchestrator.federation``."""
    parser = argparse.ArgumentParser(prog="pht-serverapp")
    parser.add_argument("--run-folder", type=Path, required=True)
    parser.add_argument("--blobs", type=Path, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca", type=Path, required=True)
    given = parser.parse_args(arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    try:
        with hold_run(given.run_folder):
            return int(
                carry(RunFolder(given.run_folder), given.blobs, Address(given.host, given.port, given.ca))
            )
    except StorageError as error:
        log.error("storage", extra={"reason": error.message})  # noqa: TRY400
        return int(Ending.STORAGE)
    except PhtError as error:
        log.error("fault", extra={"reason": f"{type(error).__name__}: {error.message}"})  # noqa: TRY400
        return int(Ending.FAULT)
    except OSError as error:
        # A full disk meets Flower's code and the interpreter's as well as ours.
        log.error("storage", extra={"reason": type(error).__name__})  # noqa: TRY400
        return int(Ending.STORAGE if error.errno in {errno.ENOSPC, errno.EDQUOT} else Ending.FAULT)
