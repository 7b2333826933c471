"""Runs the stages of `make test` in lines beside each other, and shows what each of them says as it says it.

    lines.py NAME=PATHS NAME=PATHS...

A stage is a pytest run over its paths, by way of `.ci/stage`, which notes its seconds. Where the machine has two cores
(or PHT_ONE_LINE=0 says so) there are two lines: whichever is free takes the next stage, in the order given, so that
neither waits for the other before the last; long ones stand first. Else there is one (PHT_ONE_LINE=1 says so anywhere).
With two lines a failed stage stops no other: one run shows all that is wrong, in no more time than one that passes, and
then the whole fails; what failed is said again at the end. One line ends with its first failed stage. SIGINT, SIGTERM and
SIGHUP stop every line with all that it started in its process group, gently first, so that tests take their containers
down; a second signal kills.
"""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

TICK_S = 0.5
HEARTBEAT_S = 60.0
LINES = 2
GENTLE_S = 120.0
KEPT_LINES = 60
"""How much of a failed stage's end is shown again."""


@dataclass(frozen=True)
class Stage:
    """One pytest run."""

    name: str
    paths: tuple[str, ...]

    def command(self) -> list[str]:
        """How it is started; unbuffered, so that its dots are seen as they come."""
        colour = ["--color=yes"] if sys.stdout.isatty() else []
        return [
            "bash",
            ".ci/stage",
            self.name,
            sys.executable,
            "-u",
            "-m",
            "pytest",
            *self.paths,
            "-q",
            *colour,
        ]


@dataclass
class Line:
    """What runs one stage at a time, and the one that it runs now."""

    width: int
    name: str = ""
    process: subprocess.Popen[bytes] | None = None
    unfinished: bytes = b""
    said: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    begun: float = 0.0

    def begin(self, stage: Stage) -> int:
        """Start a stage in a process group of its own; what it says comes from this descriptor."""
        self.name, self.begun, self.unfinished = stage.name, time.monotonic(), b""
        self.said.clear()
        here, there = os.pipe()
        os.set_blocking(here, False)
        self.process = subprocess.Popen(
            stage.command(), stdout=there, stderr=there, stdin=subprocess.DEVNULL, start_new_session=True
        )
        os.close(there)
        return here

    def hear(self, data: bytes) -> Iterator[str]:
        """Give the whole lines that came; what has no end yet is kept until it has."""
        *whole, self.unfinished = (self.unfinished + data).split(b"\n")
        for raw in whole:
            text = raw.decode("utf-8", "replace").rstrip("\r")
            self.said.append(text)
            yield self.labelled(text)

    def pulse(self) -> str:
        """Say that the stage still runs, and what its unfinished line says."""
        minutes, seconds = divmod(int(time.monotonic() - self.begun), 60)
        so_far = self.unfinished.decode("utf-8", "replace")
        return self.labelled(f"({minutes}:{seconds:02d} so far) {so_far}")

    def labelled(self, text: str) -> str:
        """A line of output with the name of its stage before it, where several run at once."""
        return f"{self.name:<{self.width}} | {text}" if self.width else text

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to all that the stage started, also when its first process has ended."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return


class Lines:
    """All the lines of one run, and the stages that none of them has taken yet."""

    def __init__(self, stages: list[Stage], *, at_once: bool) -> None:
        self._waiting = deque(stages)
        width = max(len(stage.name) for stage in stages) if at_once else 0
        self._lines = [Line(width) for _ in range(LINES if at_once else 1)]
        self._selector = selectors.DefaultSelector()
        self._failed: list[tuple[str, int, list[str]]] = []
        self._signals: list[int] = []
        self._kill_at = float("inf")
        self._last_said = time.monotonic()

    def run(self) -> int:
        """Run the stages; the exit code of the first one that failed, else 0."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._signalled)
        for line in self._lines:
            self._begin(line)
        while any(line.process is not None for line in self._lines):
            for key, _ in self._selector.select(TICK_S):
                self._read(key.data, key.fd)
            self._see_who_ended()
            self._stop_if_told()
            if time.monotonic() - self._last_said > HEARTBEAT_S:
                self._say(*(line.pulse() for line in self._lines if line.process is not None))
        if self._signals:
            return 128 + self._signals[0]
        for name, code, said in self._failed:
            self._say("", f"===== the end of {name}, which failed (exit {code}) =====", *said)
        return self._failed[0][1] if self._failed else 0

    def _begin(self, line: Line) -> None:
        line.process = None
        if self._waiting:
            descriptor = line.begin(self._waiting.popleft())
            self._selector.register(descriptor, selectors.EVENT_READ, line)

    def _read(self, line: Line, descriptor: int) -> bool:
        """Show what came; False when there is nothing more (for now)."""
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return False
        self._say(*line.hear(data))
        return bool(data)

    def _see_who_ended(self) -> None:
        """A stage is over when its first process is: a program that a test left behind may hold the pipe open."""
        for key in list(self._selector.get_map().values()):
            line: Line = key.data
            code = line.process.poll() if line.process is not None else None
            if code is None:
                continue
            while self._read(line, key.fd):
                pass
            self._say(*(line.hear(b"\n") if line.unfinished else ()))
            self._selector.unregister(key.fd)
            os.close(key.fd)
            if code:
                self._failed.append((line.name, code if code > 0 else 128 - code, list(line.said)))
                if len(self._lines) == 1:
                    self._waiting.clear()
            if self._signals:
                line.tell(signal.SIGKILL)
            self._begin(line)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _stop_if_told(self) -> None:
        """The first signal interrupts all lines as a keyboard would; the second, or time, kills them."""
        now = time.monotonic()
        if self._signals and self._kill_at == float("inf"):
            self._say(
                "", f"stopping all lines ({signal.Signals(self._signals[0]).name}); once more kills them"
            )
            self._kill_at = now + GENTLE_S
            self._waiting.clear()
            for line in self._lines:
                line.tell(signal.SIGINT)
        if len(self._signals) > 1 or now > self._kill_at:
            for line in self._lines:
                line.tell(signal.SIGKILL)

    def _say(self, *lines: str) -> None:
        for line in lines:
            sys.stdout.write(line + "\n")
            self._last_said = time.monotonic()
        sys.stdout.flush()


def read_stages(arguments: list[str]) -> list[Stage]:
    """Read `NAME=PATHS NAME=PATHS ...`, the paths of one stage with spaces between them."""
    parts = (argument.partition("=") for argument in arguments)
    return [Stage(name, tuple(paths.split())) for name, _, paths in parts]


def main() -> int:
    """Run the stages that the command line names."""
    stages = read_stages(sys.argv[1:])
    one_line = os.environ.get("PHT_ONE_LINE", "")
    at_once = one_line == "0" or (not one_line and len(os.sched_getaffinity(0)) >= LINES)
    return Lines(stages, at_once=at_once).run()


if __name__ == "__main__":
    sys.exit(main())
