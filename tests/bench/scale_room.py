"""What a scene of the bench needs of this machine, and whether it is there: told before it begins, not found out half way.

What others on the machine need is left alone: a share of the memory that is available, and some of the disk, are not counted.
"""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ORCHESTRATOR_MB: Final = 500.0
"""Memory of all of its processes: it does not grow with models."""

STATION_MB: Final = 4.0
STATIONS_PROCESS_MB: Final = 60.0
SUPERNODE_MB: Final = 260.0
"""A stock SuperNode, and its ClientApp's process while it has one (flwr 1.41.0)."""

DISK_KEPT_MB: Final = 2000.0
MEMORY_SHARE: Final = 0.8

_MODELS_KEPT: Final = 6
"""The orchestrator's: initial weights and what the client sends, two checkpoints, the next weights, the result."""

# Seconds of two cores that nobody shares, simulated stations and all.
_STATION_ROUND_S: Final = 0.33
_BESIDE_ROUNDS: Final = 2.5
_ORDER_S: Final = 4.0
_MOVED_MB_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Need:
    """What one order of the bench needs.

    Attributes:
        disk_mb: under the orchestrator.
        memory_mb: the models at the stations among it, where their folder lies in memory.
        seconds: about; of two cores.
    """

    disk_mb: float = 0.0
    memory_mb: float = 0.0
    seconds: float = 0.0


def need_of(stations: int, size_mb: float, rounds: int) -> Need:
    """What so many stations with such a model need.

    >>> need_of(100, 10.0, 3).disk_mb
    1060.0
    """
    processes = -(-stations // 25)
    return Need(
        disk_mb=size_mb * (stations + _MODELS_KEPT),
        memory_mb=ORCHESTRATOR_MB
        + processes * STATIONS_PROCESS_MB
        + stations * STATION_MB
        + size_mb * stations,
        seconds=_ORDER_S
        + stations * _STATION_ROUND_S * (rounds + _BESIDE_ROUNDS)
        + 2 * stations * size_mb * rounds / _MOVED_MB_S,
    )


@dataclass
class Room:
    """What is there: disk, memory, and time until the bench has to be over.

    Attributes:
        scratch: on the orchestrator's disk.
        elsewhere: where the stations' models lie.
        limit_s: for everything.
        until: of the scene that is on, on the monotonic clock.
    """

    scratch: Path
    elsewhere: Path
    limit_s: float
    begun: float = field(default_factory=time.monotonic)
    until: float = float("inf")

    @property
    def left_s(self) -> float:
        """Seconds until the scene, or all of the bench, has to be over."""
        return min(self.begun + self.limit_s, self.until) - time.monotonic()

    def share(self, share: float) -> None:
        """A scene begins that may take so much of the whole."""
        self.until = time.monotonic() + share * self.limit_s

    def lacking(self, need: Need) -> str | None:
        """What of a need is not there, in words; None where all of it is."""
        lacking: list[str] = []
        disk_mb = shutil.disk_usage(self.scratch).free / 1e6 - DISK_KEPT_MB
        memory_mb = available_mb() * MEMORY_SHARE
        if not _in_memory(self.elsewhere):
            disk_mb -= need.memory_mb
        if need.disk_mb > disk_mb:
            lacking.append(f"{need.disk_mb / 1e3:.1f} GB of disk, {max(disk_mb, 0.0) / 1e3:.1f} can be had")
        if need.memory_mb > memory_mb:
            lacking.append(f"{need.memory_mb / 1e3:.1f} GB of memory, {memory_mb / 1e3:.1f} can be had")
        if need.seconds > self.left_s:
            lacking.append(f"about {need.seconds:.0f} s, {max(self.left_s, 0.0):.0f} are left")
        return "; ".join(lacking) or None

    def most(self, counts: Sequence[int], size_mb: float, rounds: int) -> int | None:
        """The most of these numbers of stations that there is room for."""
        for count in sorted(counts, reverse=True):
            if self.lacking(need_of(count, size_mb, rounds)) is None:
                return count
        return None


def available_mb() -> float:
    """Memory that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 / 1e6
    return float(os.sysconf("SC_AVPHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _in_memory(folder: Path) -> bool:
    return Path("/dev/shm") in folder.resolve().parents
