"""Trains that ship, built and packed once each by `pht-train` itself."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tool_kit import Tool

from station.sandbox.spec import MIB, ContainerSpec
from train_images.tool.folders import PackedTrain, read_bundle
from train_images.tool.sandbox_home import SandboxHome

TRAINS = Path(__file__).resolve().parents[1] / "train_images"


def tag_of(name: str) -> str:
    """The tag of a train's image in this run of the tests; another run beside it has its own."""
    return f"pht-test-{os.getpid()}-train-{name}:1"


def remove_images(tags: Iterable[str]) -> None:
    """Take images away that tests have made; one that never came to be is no fault."""
    for tag in tags:
        subprocess.run(["docker", "rmi", "-f", tag], check=False, capture_output=True, timeout=60)


def spec_of(train: PackedTrain, home: SandboxHome, run_id: str, **changes: Any) -> ContainerSpec:
    """A container with what a train's manifest asks for, as far as this machine has it, on the cohort in ``home.cohorts / "cohort"``."""
    resources = train.manifest.resources
    values: dict[str, Any] = {
        "run_id": run_id,
        "image_config_digest": train.index.config.digest,
        "cohort_dir": str(home.cohorts / "cohort"),
        "control_dir": str(home.control / run_id),
        "memory_bytes": resources.memory_mib * MIB,
        "cpus": min(resources.cpus, float(os.cpu_count() or 1)),
        "pids": resources.pids,
        "scratch_bytes": resources.scratch_mib * MIB,
        "wall_clock_s": 300,
    }
    return ContainerSpec(**values | changes)


class Yard:
    """Packs a train of `train_images` when it is first asked for; its image goes when the tests have ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tags: list[str] = []

    def packed(self, tool: Tool, name: str, source: Path | None = None) -> PackedTrain:
        """The bundle of a train; `source` is its folder where that is none of `train_images`."""
        out = self._folder / name
        if not out.exists():
            tag = tag_of(name)
            self.tags.append(tag)
            tool("build", source or TRAINS / name, "--tag", tag)
            tool("pack", source or TRAINS / name, out, "--tag", tag)
        return read_bundle(out)
