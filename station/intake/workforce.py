"""The workers that an intake has: how many, and what they work with.

Merges change whom a patient is known by, and with it what workers work with: they are then replaced, a batch in progress
going on with those it has (`recording` sets what they answer right).
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from station.intake.paths import IntakePaths
from station.intake.settings import IntakeSettings
from station.intake.workers import Setup, WorkerPool
from station.pseudonymisation.keys import PseudonymKey

Aliases = dict[tuple[str, str], tuple[str, str]]


class Workforce:
    """Two pools: one for batches, and one worker for a person at the desk, who does not wait for a batch.

    Args:
        paths: where pseudonymised files go.
        settings: how many workers, under which limits.
        key: the hospital's key; workers get it in memory.
        aliases: returns (issuer, id) of merged patients, and whom the hospital knows them by now.
    """

    def __init__(
        self, paths: IntakePaths, settings: IntakeSettings, key: PseudonymKey, aliases: Callable[[], Aliases]
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._key = key
        self._aliases = aliases
        self._lock = threading.Lock()
        self._pools: dict[str, WorkerPool] = {}

    @contextmanager
    def pool(self) -> Iterator[WorkerPool]:
        """Lend the batches' pool."""
        yield self._pool("batches", self._settings.workers or _cores())

    @contextmanager
    def desk(self) -> Iterator[WorkerPool]:
        """Lend the desk's worker."""
        yield self._pool("desk", 1)

    def renew(self) -> None:
        """Have the next work done with what holds now."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.retire()

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.close()

    def _pool(self, name: str, size: int) -> WorkerPool:
        with self._lock:
            if name not in self._pools:
                self._pools[name] = WorkerPool(self._setup(), size, self._settings.file_timeout_s)
            return self._pools[name]

    def _setup(self) -> Setup:
        settings = self._settings
        return Setup(
            key=self._key,
            project=settings.project,
            default_issuer=settings.default_issuer,
            options=dict(settings.options),
            body_parts=dict(settings.body_parts),
            aliases=self._aliases(),
            handover=self._paths.handover,
            sop_classes=frozenset(settings.sop_classes),
            max_file_bytes=settings.max_file_bytes,
            memory_bytes=settings.worker_memory_mib << 20,
            pixels=settings.pixels,
            cpu_s=int(settings.file_timeout_s) + 1,
        )


def _cores() -> int:
    return max(1, len(os.sched_getaffinity(0)))
