"""What each process of a running orchestrator costs: memory, processor seconds, descriptors and threads, from /proc."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_TICK = os.sysconf("SC_CLK_TCK")
_NAMES: Final = (
    ("flower-superlink", "superlink"),
    ("orchestrator.front", "front"),
    ("orchestrator.federation", "serverapp"),
    ("orchestrator.run_worker", "worker"),
)
PARTS: Final = ("front", "superlink", "serverapp", "worker")
"""Results are written by a process of their own once a run is over; it is no part of a round."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One process at one moment.

    Attributes:
        at: on the monotonic clock.
        anonymous_mb: memory of its own, without mapped files: those are the page cache's.
        cpu_s: since it started.
    """

    at: float
    pid: int
    anonymous_mb: float
    cpu_s: float
    descriptors: int
    threads: int


def read_process(pid: int) -> Reading:
    """Read one process.

    Raises:
        OSError: it is gone.
    """
    folder = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
    if "RssAnon" not in status:
        raise ProcessLookupError(pid)
    numbers = (folder / "stat").read_text().rpartition(")")[2].split()
    return Reading(
        time.monotonic(),
        pid,
        int(status["RssAnon"].split()[0]) / 1000,
        (int(numbers[11]) + int(numbers[12])) / _TICK,
        len(list((folder / "fd").iterdir())),
        int(status["Threads"]),
    )


def parts_of(root: int) -> dict[str, int]:
    """The orchestrator's processes below its supervisor, by what they are."""
    found: dict[str, int] = {}
    for pid in _descendants(root):
        with suppress(OSError):
            command = (Path("/proc") / str(pid) / "cmdline").read_bytes().decode(errors="replace")
            for mark, name in _NAMES:
                if mark in command:
                    found[name] = pid
                    break
    return found


def _descendants(root: int) -> Iterable[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children[int(parent)].append(int(entry.name))
    waiting = [root]
    while waiting:
        for child in children[waiting.pop()]:
            yield child
            waiting.append(child)


class Watch:
    """Reads every part of an orchestrator a few times a second, in a thread of its own."""

    def __init__(
        self, root: int, every_s: float = 0.2, find: Callable[[int], dict[str, int]] = parts_of
    ) -> None:
        self._root, self._every_s, self._find = root, every_s, find
        self._over = threading.Event()
        self.readings: dict[str, list[Reading]] = {name: [] for name in PARTS}
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def peak_mb(self, part: str, begin: float = 0.0, end: float = float("inf")) -> float:
        """The most memory that a part had between two moments; 0 where it was not there."""
        return max(
            (each.anonymous_mb for each in self.readings[part] if begin <= each.at <= end), default=0.0
        )

    def cpu_s(self, part: str, begin: float, end: float) -> float:
        """Processor seconds of a part between two moments; of the process that was there last."""
        inside = [each for each in self.readings[part] if begin <= each.at <= end]
        same = [each for each in inside if each.pid == inside[-1].pid]
        return same[-1].cpu_s - same[0].cpu_s if same else 0.0

    def _run(self) -> None:
        pids: dict[str, int] = {}
        looked = 0.0
        while not self._over.wait(self._every_s):
            if time.monotonic() - looked > 1.0 or len(pids) < len(PARTS):
                pids, looked = self._find(self._root), time.monotonic()
            for name, pid in pids.items():
                with suppress(OSError):
                    self.readings[name].append(read_process(pid))
