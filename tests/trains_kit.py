"""Trains that ship, built and packed once each by `pht-train` itself."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tool_kit import Tool

from train_images.tool.folders import PackedTrain, read_bundle

TRAINS = Path(__file__).resolve().parents[1] / "train_images"


def tag_of(name: str) -> str:
    """The tag of a train's image in this run of the tests; another run beside it has its own."""
    return f"pht-test-{os.getpid()}-train-{name}:1"


def remove_images(tags: Iterable[str]) -> None:
    """Take images away that tests have made; one that never came to be is no fault."""
    for tag in tags:
        subprocess.run(["docker", "rmi", "-f", tag], check=False, capture_output=True, timeout=60)


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
