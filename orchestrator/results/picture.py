"""Draws the metrics of a run over its rounds, and the tables of its last: one small chart each, one line per station, the mean in black.

What the stations suppressed is not there, and so is not drawn.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from orchestrator.results.tables import draw_table, drawable
from policies.manifest import TrainManifest

MAX_CHARTS = 12
_COLUMNS = 3
_STAGES = ("train", "evaluate", "analyse")


def draw_metrics(
    rounds: Sequence[Mapping[str, Any]], title: str, to: Path, manifest: TrainManifest | None = None
) -> None:
    """Write the picture (PNG) of all metrics of all stages; with the train's manifest, of its tables too."""
    charts = _charts(rounds)[:MAX_CHARTS]
    tables = [] if manifest is None or not rounds else drawable(manifest, rounds[-1])[:MAX_CHARTS]
    shown = len(charts) + len(tables)
    columns = min(_COLUMNS, max(1, shown))
    rows = max(1, -(-shown // columns))
    figure, grid = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.0 * rows), squeeze=False)
    places = [place for row in grid for place in row]
    for place, (stage, metric) in zip(places, charts, strict=False):
        _draw(place, rounds, stage, metric)
    for place, item in zip(places[len(charts) :], tables, strict=False):
        if manifest is not None:
            draw_table(place, manifest, item, rounds[-1])
    for place in places[shown:]:
        place.axis("off")
    if not shown:
        places[0].text(0.5, 0.5, "no metrics were released", ha="center", va="center")
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(to, dpi=120, format="png", metadata={"Software": None})
    plt.close(figure)


def _charts(rounds: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    found: dict[tuple[str, str], None] = {}
    for entry in rounds:
        for stage in _STAGES:
            for metrics in (entry.get(stage) or {}).values():
                found |= dict.fromkeys((stage, metric) for metric in sorted(metrics))
    return list(found)


def _draw(place: Any, rounds: Sequence[Mapping[str, Any]], stage: str, metric: str) -> None:  # noqa: ANN401 - matplotlib's Axes is untyped here
    stations = sorted({name for entry in rounds for name in (entry.get(stage) or {})})
    for name in stations:
        points = [
            (entry["round"], entry[stage][name][metric])
            for entry in rounds
            if metric in (entry.get(stage) or {}).get(name, {})
        ]
        place.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1, label=name)
    means = [
        (entry["round"], entry["means"][stage][metric])
        for entry in rounds
        if metric in (entry.get("means") or {}).get(stage, {})
    ]
    if means:
        place.plot(*zip(*means, strict=True), color="black", linewidth=2, label="weighted mean")
    place.set_title(f"{stage}: {metric}", fontsize=9)
    place.set_xlabel("round", fontsize=8)
    place.xaxis.get_major_locator().set_params(integer=True)
    place.tick_params(labelsize=7)
    place.grid(visible=True, alpha=0.3)
    place.legend(fontsize=6)
