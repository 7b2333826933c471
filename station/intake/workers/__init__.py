"""Processes that may die: they meet the files, so that intake itself never does."""

from station.intake.workers.messages import (
    Box,
    Broken,
    Described,
    DescribeTask,
    Refused,
    Rendered,
    RenderTask,
    Setup,
    Taken,
    TakeTask,
)
from station.intake.workers.pool import Finished, WorkerPool

__all__ = [
    "Box",
    "Broken",
    "DescribeTask",
    "Described",
    "Finished",
    "Refused",
    "RenderTask",
    "Rendered",
    "Setup",
    "TakeTask",
    "Taken",
    "WorkerPool",
]
