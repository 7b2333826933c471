"""One supervised process: started in a group of its own, started again when it ends, never outliving its supervisor.

Linux only, as the whole orchestrator: the kernel ends a child when its parent dies (`PR_SET_PDEATHSIG`), also when the
parent was killed with SIGKILL.
"""

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_LOG = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 30.0
MAX_OUTPUT_BYTES = 20 << 20
STEADY_AFTER_S = 60.0
"""A child that ran this long is well: its next end starts the waits anew."""


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """How a child is started.

    Attributes:
        name: in logs.
        command: argument vector.
        output: file that takes what it writes to stdout and stderr.
        environment: all of its environment.
        inherited: file descriptors that it keeps.
    """

    name: str
    command: Sequence[str]
    output: Path
    environment: Mapping[str, str]
    inherited: tuple[int, ...] = ()


@dataclass(slots=True)
class Child:
    """A child and how it fares; not for use by several threads (its death signal follows the starting thread)."""

    plan: ChildPlan
    clock: Callable[[], float] = time.monotonic
    process: "subprocess.Popen[bytes] | None" = None
    restarts: int = 0
    _started_at: float = 0.0
    _wait_s: float = field(default=FIRST_WAIT_S)
    _start_at: float = 0.0

    def start(self) -> None:
        """Start the process now."""
        parent = os.getpid()

        def die_with_parent() -> None:
            # Runs between fork and exec. The supervisor is single-threaded, which makes this safe.
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        _make_room(self.plan.output)
        with self.plan.output.open("ab") as output:
            self.process = subprocess.Popen(
                list(self.plan.command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self.plan.environment),
                pass_fds=self.plan.inherited,
                process_group=0,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - see above
            )
        self._started_at = self.clock()
        _LOG.info("child_started", extra={"child": self.plan.name, "pid": self.process.pid})

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """How it ended, if it did."""
        return None if self.process is None else self.process.poll()

    def tend(self) -> None:
        """Start the process again if it ended and its wait is over; called now and then."""
        if self.running:
            return
        now = self.clock()
        if self.process is not None:
            if now - self._started_at > STEADY_AFTER_S:
                self._wait_s = FIRST_WAIT_S
            _LOG.error(
                "child_ended",
                extra={"child": self.plan.name, "exit_status": self.exit_status, "wait_s": self._wait_s},
            )
            self.process = None
            self._start_at = now + self._wait_s
            self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)
        if now >= self._start_at:
            self.restarts += 1
            self.start()

    def stop(self, timeout_s: float) -> None:
        """End the process and its group: asked first, then killed."""
        process = self.process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                _LOG.warning("child_killed", extra={"child": self.plan.name})
        # What it started itself is in its group, and may have outlived it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.process = None


def _make_room(output: Path) -> None:
    """Keep what a child writes bounded over its restarts: one older file is kept."""
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.exists() and output.stat().st_size > MAX_OUTPUT_BYTES:
        output.replace(output.with_name(output.name + ".1"))
