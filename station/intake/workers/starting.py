"""How a worker comes to be: the foreman is started when first needed, and forks one that gets its setup."""

import array
import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from policies.errors import UnavailableError
from station.intake.workers.messages import (
    ANSWER,
    MAX_ANSWER_BYTES,
    MessageError,
    Ready,
    Setup,
    Task,
    receive,
    send,
)

_START_TIMEOUT_S = 60.0
_GRACE_S = 1.0


@dataclass(slots=True)
class Order:
    """A task on its way.

    Attributes:
        index: its place among the tasks of a run.
        strikes: how many workers it killed.
    """

    index: int
    task: Task
    strikes: int = 0


@dataclass(slots=True)
class Worker:
    """One worker, and what it was given and has not answered.

    Attributes:
        since: when it began with the first of `given`.
    """

    connection: socket.socket
    process: int
    given: deque[Order] = field(default_factory=deque)
    buffer: bytearray = field(default_factory=bytearray)
    since: float = 0.0

    def close(self) -> None:
        """Kill it."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.process, signal.SIGKILL)
        os.close(self.process)
        self.connection.close()


def start_worker(setup: Setup, timeout_s: float) -> Worker:
    """Start a worker.

    Raises:
        UnavailableError: it does not start.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            _foreman().fork(theirs)
        ours.settimeout(_START_TIMEOUT_S)
        send(ours, setup.encode())
        ready = ANSWER.validate_json(receive(ours, MAX_ANSWER_BYTES))
        process = os.pidfd_open(ready.pid) if isinstance(ready, Ready) else None
    except (MessageError, ValidationError, OSError):
        process = None
    if process is None:
        ours.close()
        raise UnavailableError(
            "intake: a worker process does not start", hint="Look at the host's memory and process limits."
        )
    ours.settimeout(timeout_s)
    return Worker(ours, process)


class _Foreman:
    """The process that forks workers; one for this process, started when first needed and again after it died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        atexit.register(self.close)

    def fork(self, theirs: socket.socket) -> None:
        """Have a worker forked that serves this end of a socket.

        Raises:
            OSError: the process cannot be started, or is gone.
        """
        with self._lock:
            descriptors = array.array("i", [theirs.fileno()])
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
            self._running().sendmsg([b"\0"], rights)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _running(self) -> socket.socket:
        if self._connection is not None and self._process is not None and self._process.poll() is None:
            return self._connection
        self._end()
        ours, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parents[3])
        # Built, not inherited: nothing of the station's environment reaches the processes that meet files.
        environment = {
            "PYTHONPATH": root,
            "PATH": os.defpath,
            "LC_ALL": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "OMP_THREAD_LIMIT": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-m", "station.intake.workers.foreman"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # codecs print values
                env=environment,
                cwd="/",
            )
        self._connection = ours
        return ours

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        process, self._process = self._process, None
        if connection is not None:
            connection.close()
        if process is not None:
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@lru_cache(maxsize=1)
def _foreman() -> _Foreman:
    return _Foreman()
