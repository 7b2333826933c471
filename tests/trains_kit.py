"""Trains that ship, built and packed once each by `pht-train` itself."""

from pathlib import Path

from tool_kit import Tool

from train_images.tool.folders import PackedTrain, read_bundle

TRAINS = Path(__file__).resolve().parents[1] / "train_images"


class Yard:
    """Packs a train of `train_images` when it is first asked for; its image goes when the tests have ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tags: list[str] = []

    def packed(self, tool: Tool, name: str, source: Path | None = None) -> PackedTrain:
        """The bundle of a train; `source` is its folder where that is none of `train_images`."""
        out = self._folder / name
        if not out.exists():
            tag = f"pht-test-train-{name}:1"
            self.tags.append(tag)
            tool("build", source or TRAINS / name, "--tag", tag)
            tool("pack", source or TRAINS / name, out, "--tag", tag)
        return read_bundle(out)
