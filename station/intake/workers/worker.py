"""A worker: takes a task, meets the file, answers; one after another until intake closes the socket.

It may die of any file. What it says is read by intake as untrusted, and what it prints goes nowhere.
"""

import os
import resource
import socket
import traceback
from pathlib import Path
from types import FrameType

from policies.errors import StorageError
from station.intake.workers.messages import (
    MAX_TASK_BYTES,
    TASK,
    Answer,
    Broken,
    DescribeTask,
    MessageError,
    Ready,
    RenderTask,
    Setup,
    TakeTask,
    Unstored,
    receive,
    receive_setup,
    send_document,
)
from station.intake.workers.review import describe, render
from station.intake.workers.taking import Taker
from station.pseudonymisation.reading import quiet_pydicom

_OPEN_FILES = 256


def work(connection: socket.socket) -> None:
    """Work until the other end closes."""
    try:
        setup = receive_setup(connection)
        _limit(setup)
        quiet_pydicom()
        taker = Taker(setup)
        send_document(connection, Ready(pid=os.getpid()))
        while True:
            task = TASK.validate_json(receive(connection, MAX_TASK_BYTES), strict=False)
            _limit_cpu(setup.cpu_s)
            send_document(connection, _answer(task, taker))
    except MessageError:
        return


def _answer(task: TakeTask | DescribeTask | RenderTask, taker: Taker) -> Answer:
    try:
        match task:
            case TakeTask():
                return taker.take(task)
            case DescribeTask():
                return describe(Path(task.path))
            case RenderTask():
                return render(Path(task.path), task.longest_side)
    except StorageError:
        return Unstored()
    except Exception as error:  # noqa: BLE001 - the outermost boundary of this process
        return Broken(type=type(error).__name__[:60], place=_place(error))


def _place(error: BaseException) -> str:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return _where(frames[-1]) if frames else "unknown:0"


def _where(frame: FrameType) -> str:
    name = str(frame.f_globals.get("__name__", "unknown"))
    kept = "".join(character for character in name if character.isalnum() or character in "._")
    return f"{kept[:100]}:{frame.f_lineno}"


def _limit(setup: Setup) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (setup.memory_bytes, setup.memory_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    # A pseudonymised file is about as large as its original, or as its pixels when they had to be decoded.
    largest = 4 * setup.max_file_bytes
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))


def _limit_cpu(seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds + 1, hard))
