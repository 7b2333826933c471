"""What containers used, from the kernel's own counts where this machine shows them: a launcher that looks before it ends one.

Files count as memory where the container was the first to read them; what this process wrote just now lies in the cache of this host.
Where there is nothing to read (another engine, a container that the kernel has ended already) there is no number.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from station.sandbox.gpu.model import GpuReport
from station.sandbox.spec import (
    ContainerSpec,
    ContainerStatus,
    EngineInfo,
    Launcher,
    LoadedImage,
    StartedContainer,
)

_CGROUPS: Final = Path("/sys/fs/cgroup")
_MEMORY: Final = (
    "memory/docker/{id}/memory.max_usage_in_bytes",
    "memory/system.slice/docker-{id}.scope/memory.max_usage_in_bytes",
    "docker/{id}/memory.peak",
    "system.slice/docker-{id}.scope/memory.peak",
)
_PROCESSOR: Final = (
    ("cpuacct/docker/{id}/cpuacct.usage", "", 1e9),
    ("cpuacct/system.slice/docker-{id}.scope/cpuacct.usage", "", 1e9),
    ("docker/{id}/cpu.stat", "usage_usec ", 1e6),
    ("system.slice/docker-{id}.scope/cpu.stat", "usage_usec ", 1e6),
)


@dataclass(frozen=True, slots=True)
class ContainerUse:
    """What one container used, as far as it was looked at.

    Attributes:
        peak_memory_bytes: its tmpfs and the files that it was the first to read counted; None where the machine does not show it.
        processor_s: of all processors together; likewise.
        alive_s: from its start until it was last looked at.
    """

    peak_memory_bytes: int | None
    processor_s: float | None
    alive_s: float


@dataclass(frozen=True, slots=True)
class TrainUse:
    """What all containers of one train used.

    Attributes:
        containers: how many; a map train has one per patient.
        peak_memory_bytes: of the one that used most.
        processor_s: of all together.
        alive_s: likewise.
        longest_s: of the one that was there longest.
    """

    containers: int
    peak_memory_bytes: int | None
    processor_s: float | None
    alive_s: float
    longest_s: float


class MeasuringLauncher:
    """A launcher that reads what a container used before it is waited for or ended. Otherwise the one it is made of."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._started: dict[str, tuple[str, float]] = {}
        self._uses: dict[str, ContainerUse] = {}

    @property
    def uses(self) -> Mapping[str, ContainerUse]:
        """What each container used, by the name that it was started with."""
        return self._uses

    def look(self, run_id: str) -> None:
        """Read what a container has used by now; fine when it is gone."""
        if run_id not in self._started:
            return
        container, began = self._started[run_id]
        memory, processor = _peak_memory(container), _processor_s(container)
        if memory is not None or processor is not None or run_id not in self._uses:
            self._uses[run_id] = ContainerUse(memory, processor, time.monotonic() - began)

    def engine_info(self) -> EngineInfo:
        """Ask the launcher."""
        return self._launcher.engine_info()

    def load_image(self, config_digest: str) -> LoadedImage:
        """Ask the launcher."""
        return self._launcher.load_image(config_digest)

    def remove_image(self, config_digest: str) -> bool:
        """Ask the launcher."""
        return self._launcher.remove_image(config_digest)

    def start(self, spec: ContainerSpec) -> StartedContainer:
        """Start a container, and note when."""
        began = time.monotonic()
        started = self._launcher.start(spec)
        self._started[spec.run_id] = (started.container_id, began)
        return started

    def status(self, run_id: str) -> ContainerStatus:
        """Ask the launcher."""
        return self._launcher.status(run_id)

    def wait(self, run_id: str, timeout_s: float) -> ContainerStatus:
        """Look, then wait until it has exited."""
        self.look(run_id)
        return self._launcher.wait(run_id, timeout_s)

    def logs(self, run_id: str, max_bytes: int) -> str:
        """Ask the launcher."""
        return self._launcher.logs(run_id, max_bytes)

    def stop(self, run_id: str) -> None:
        """Look, then end it."""
        self.look(run_id)
        self._launcher.stop(run_id)

    def list_runs(self) -> tuple[ContainerStatus, ...]:
        """Ask the launcher."""
        return self._launcher.list_runs()

    def remove_orphans(self) -> int:
        """Ask the launcher."""
        return self._launcher.remove_orphans()

    def gpus(self) -> GpuReport:
        """Ask the launcher."""
        return self._launcher.gpus()


def together(uses: Iterable[ContainerUse]) -> TrainUse | None:
    """Return what containers used together, or None where there was none."""
    found = list(uses)
    if not found:
        return None
    memory = [use.peak_memory_bytes for use in found if use.peak_memory_bytes is not None]
    processor = [use.processor_s for use in found if use.processor_s is not None]
    return TrainUse(
        containers=len(found),
        peak_memory_bytes=max(memory, default=None),
        processor_s=sum(processor) if len(processor) == len(found) else None,
        alive_s=sum(use.alive_s for use in found),
        longest_s=max(use.alive_s for use in found),
    )


def _peak_memory(container: str) -> int | None:
    for form in _MEMORY:
        try:
            return int((_CGROUPS / form.format(id=container)).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
    return None


def _processor_s(container: str) -> float | None:
    for form, key, per_second in _PROCESSOR:
        try:
            text = (_CGROUPS / form.format(id=container)).read_text(encoding="ascii")
            line = next(line for line in text.splitlines() if line.startswith(key))
            return int(line.removeprefix(key)) / per_second
        except (OSError, ValueError, StopIteration):
            continue
    return None
