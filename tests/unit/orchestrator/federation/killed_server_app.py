"""A ServerApp process that is killed before its n-th durable step: every sync, rename, removal, cut and write of its files is one.

Imports once, then forks a process per life: each is a ServerApp as the run worker starts it, over a grid in memory with stations whose
answers are on disk, as real ones keep theirs. Lines on its standard input are commands: ``BASE STEP`` (0: not killed); it answers
with how the life ended and how many steps it took.

Usage: killed_server_app.py
"""

import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from federation_world import NODES, World
from flwr.supercore.task_identity import TaskIdentity
from grid_simulator import Answer, GridSimulator

from orchestrator.federation import server_app
from orchestrator.federation.orders import FolderQueue
from orchestrator.federation.tasks import Address
from orchestrator.federation.updates import update_path
from policies.wire.instructions import Instruction, StationReply, decode_reply, encode

EVENTS = {"os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir"}
WRITING = os.O_WRONLY | os.O_RDWR


class Steps:
    """Counts what the main thread does durably, and ends the process before one of it."""

    def __init__(self, base: Path, kill_at: int) -> None:
        self.base, self.kill_at, self.count = str(base), kill_at, 0

    def install(self) -> None:
        def counted(descriptor: int) -> None:
            # Nothing is lost with the process alone: only the step is of interest.
            del descriptor
            self.step()

        os.fsync = counted
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and (not isinstance(arguments[2], int) or not arguments[2] & WRITING):
            return
        if (event == "open" or event in EVENTS) and not str(arguments[0]).endswith(
            ("/alive", "serverapp.log")
        ):
            self.step()

    def step(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.count += 1
            if self.count == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


class RecordingWorld(World):
    """Stations that answer a question that they answered before as they did then, also over their caller's death."""

    def answer(self, name: str) -> Callable[[Instruction], Answer]:
        fresh = super().answer(name)

        def reply(instruction: Instruction) -> Answer:
            if not instruction.round:
                return fresh(instruction)
            stored = self.blobs.parent / "stations" / f"{name}-{instruction.kind}-{instruction.round}"
            if stored.exists():
                kept = decode_reply(stored.read_bytes())
                arrays = stored.with_suffix(".arrays")
                if kept.release is not None and arrays.exists():
                    self.upload(name, arrays.read_bytes())
                return kept.model_copy(update={"attempt": instruction.attempt})
            told = fresh(instruction)
            if isinstance(told, StationReply):
                if told.release is not None:
                    sent = update_path(self.blobs, instruction.order_digest, name, told.release.digest)
                    stored.with_suffix(".arrays").write_bytes(sent.read_bytes())
                stored.write_bytes(encode(told))
            return told

        return reply


class Grid(GridSimulator):
    """The simulated grid with the calls of a task; what stations write is no step of the ServerApp's."""

    def start_task(self) -> None: ...

    def resume_task(self, task_id: int, run_id: int) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = task_id, run_id, 1

    def heartbeat(self) -> None: ...

    def finish_task(self, *, completed: bool) -> None: ...

    def close(self) -> None: ...


def live(base: Path, kill_at: int, report: int) -> int:
    """One life of a ServerApp."""
    logging.disable(logging.CRITICAL)
    read, _ = os.pipe()
    os.dup2(read, 0)
    world = RecordingWorld(base)
    steps = Steps(base, kill_at)

    def outside(node: int) -> Callable[[Instruction], Answer]:
        def answer(instruction: Instruction) -> Answer:
            counted, steps.kill_at, steps.count = (steps.kill_at, steps.count), 0, 0
            told = world.grid.stations[node](instruction)
            steps.kill_at, steps.count = counted
            return told

        return answer

    grid = Grid({node: outside(node) for node in NODES.values()}, online=set(NODES.values()))
    server_app.OrderGrid = lambda *_: grid  # type: ignore[assignment,misc]
    (folder,) = FolderQueue(base / "runs").folders()
    steps.install()
    ending = server_app.carry(
        folder, world.blobs, Address("127.0.0.1", 1, base / "superlink" / "tls" / "ca.pem")
    )
    os.write(report, str(steps.count).encode())
    return int(ending)


def main() -> None:
    for line in sys.stdin:
        base, kill_at = line.rsplit(" ", 1)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                code = live(Path(base), int(kill_at), write)
            except BaseException:  # noqa: BLE001 - the outermost boundary of a process
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(write)
        _, status = os.waitpid(pid, 0)
        steps = os.read(read, 32)
        os.close(read)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "steps": int(steps or 0)}), flush=True)


if __name__ == "__main__":
    main()
