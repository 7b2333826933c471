"""Programs kept running as a service manager does: what ends is started again, whatever ended it."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from tests.e2e.programs import environment

START_S = 180.0


class Unit:
    """One program with its words in a file, started again when it ends.

    Args:
        name: in reports.
        command: argument vector.
        log: takes stdout and stderr.
        ready: what it says when it is up; None where it says nothing.
        pause_s: before it is started again.
    """

    def __init__(
        self, name: str, command: list[str], log: Path, *, ready: str | None, pause_s: float = 0.5
    ) -> None:
        self.name = name
        self._command, self._log, self._ready, self._pause_s = command, log, ready, pause_s
        self._process: subprocess.Popen[bytes] | None = None
        self._leaving = threading.Event()
        self._watcher: threading.Thread | None = None
        self._said = 0
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """Its process, while it lives."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start it, and keep it running from now on."""
        self._launch()
        self._watcher = threading.Thread(target=self._watch, name=f"unit-{self.name}", daemon=True)
        self._watcher.start()

    def await_ready(self) -> None:
        """Wait until its newest process has said that it is up."""
        deadline = time.monotonic() + START_S
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} did not come up:\n{self.tail()}")
            self._leaving.wait(0.05)

    def is_ready(self) -> bool:
        """Whether its newest process has said that it is up."""
        if self.pid is None:
            return False
        return self._ready is None or self._ready.encode() in self._log.read_bytes()[self._said :]

    def tail(self, length: int = 3000) -> str:
        """The end of what it said."""
        return self._log.read_bytes()[-length:].decode(errors="replace") if self._log.exists() else ""

    def stop(self, timeout_s: float = 60) -> None:
        """End it as a service manager does: asked first, then killed."""
        self._leaving.set()
        if self._watcher is not None:
            self._watcher.join(START_S)
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _launch(self) -> None:
        self._said = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as words:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                env=environment(),
                start_new_session=True,
            )
        self.starts += 1

    def _watch(self) -> None:
        while not self._leaving.is_set():
            assert self._process is not None
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)
            if self._process.poll() is None:
                continue
            if not self._leaving.wait(self._pause_s):
                self._launch()
