"""The workers that an intake has: how many, and what they work with."""

import os

from station.intake.paths import IntakePaths
from station.intake.settings import IntakeSettings
from station.intake.workers import Setup, WorkerPool
from station.pseudonymisation.keys import PseudonymKey

Aliases = dict[tuple[str, str], tuple[str, str]]


def make_pool(
    paths: IntakePaths, settings: IntakeSettings, key: PseudonymKey, aliases: Aliases
) -> WorkerPool:
    """Make the pool; workers start when there is work.

    Args:
        paths: where pseudonymised files go.
        settings: how many workers, under which limits.
        key: the hospital's key; workers get it in memory.
        aliases: (issuer, id) of merged patients, and whom the hospital knows them by.
    """
    setup = Setup(
        key=key,
        project=settings.project,
        default_issuer=settings.default_issuer,
        options=dict(settings.options),
        aliases=aliases,
        handover=paths.handover,
        sop_classes=frozenset(settings.sop_classes),
        max_file_bytes=settings.max_file_bytes,
        memory_bytes=settings.worker_memory_mib << 20,
        cpu_s=int(settings.file_timeout_s) + 1,
    )
    return WorkerPool(setup, settings.workers or _cores(), settings.file_timeout_s)


def _cores() -> int:
    return max(1, len(os.sched_getaffinity(0)))
