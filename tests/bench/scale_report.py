"""What the bench of scale says while it runs and what it has found, scene by scene: nothing found is lost with what fails later."""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.scale_processes import PARTS

SAY_EVERY_S = 15.0
"""Rounds that are over sooner are not told one by one."""


@dataclass
class Found:
    """What one scene has found until now."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    failed: str | None = None
    load: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Report:
    """Says and keeps what is found.

    Attributes:
        output: a JSON file, written after each step.
    """

    console: Console
    output: Path | None = None
    begun: float = field(default_factory=time.monotonic)
    scenes: dict[str, Found] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)
    _now: str = ""
    _said: float = 0.0

    @property
    def found(self) -> Found:
        """Of the scene that is on."""
        return self.scenes[self._now]

    def begin(self, scene: str, title: str) -> None:
        """A scene begins."""
        self._now = scene
        self.scenes[scene] = Found(load=_load())
        self.console.rule(f"{scene}: {title}")

    def end(self) -> None:
        """A scene is over, however: show what it has."""
        found = self.found
        if found.rows:
            self.console.print(_table_of(found.rows))
        if found.ratios:
            table = Table(title=f"{self._now}", show_header=False, title_justify="left")
            for name, value in found.ratios.items():
                table.add_row(name, f"{value:.3g}")
            self.console.print(table)
        for each in found.left_out:
            self.console.print(f"left out: {each}")
        if found.failed:
            self.console.print(f"[bold]failed:[/] {found.failed}")
        found.load += _load()
        self.keep()

    def say(self, text: str) -> None:
        """One line, with the time since the start."""
        self._said = time.monotonic()
        since = round(time.monotonic() - self.begun, 1)
        self.console.print(f"\\[{int(since // 60):2d}:{since % 60:04.1f}] {text}")

    def on_round(self, number: int, since_s: float) -> None:
        """A round is over; said where nothing was for a while."""
        if time.monotonic() - self._said > SAY_EVERY_S:
            self.say(f"  round {number} is over, {since_s:.0f} s after the order")

    def ratio(self, name: str, value: float) -> None:
        """Keep a figure."""
        self.found.ratios[name] = value
        self.keep()

    def row(self, row: dict[str, Any]) -> None:
        """Keep a row of the table of rounds."""
        self.found.rows.append(row)
        self.keep()

    def left_out(self, what: str) -> None:
        """Say and keep what is not measured, and why."""
        self.found.left_out.append(what)
        self.say(f"left out: {what}")
        self.keep()

    def keep(self) -> None:
        """Write all of it."""
        if self.output is None:
            return
        scenes = {name: _plain(found) for name, found in self.scenes.items()}
        self.output.write_text(json.dumps({"conditions": self.conditions, "scenes": scenes}, indent=1) + "\n")


def conditions() -> dict[str, Any]:
    """Of what, on what, beside what."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return {"commit": commit, "cores": os.cpu_count(), "memory_gb": round(memory_gb), "load": _load()}


def _load() -> list[float]:
    return [round(os.getloadavg()[0], 1)]


def _plain(found: Found) -> dict[str, Any]:
    return {
        name: value
        for name in ("rows", "ratios", "left_out", "failed", "load", "seconds")
        if (value := getattr(found, name))
    }


def _table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(
        title="a round (train and evaluate): wall seconds; per station: requests and MB; of each process: CPU s, peak MB",
        title_justify="left",
    )
    for column in ("stations", "model", "s", "averaging s", "requests", "in", "out", *PARTS, "stations' CPU"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["stations"]),
            f"{row['size_mb']:g} MB",
            f"{row['wall_s']:.2f}",
            f"{row['aggregate_s']:.2f}",
            f"{row['requests']:.0f}",
            f"{row['received']:.2f}",
            f"{row['sent']:.2f}",
            *(f"{row['cpu_s'][part]:.2f} s {row['peak_mb'][part]:.0f} MB" for part in PARTS),
            f"{row['stations_cpu_s']:.2f} s",
        )
    return table
