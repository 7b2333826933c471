"""What the released tables of a run are: the names of their lines and columns, and a small chart of each.

Counts and sums are shown as the sum over stations, quantiles for each station where the policy shows those, else the bounds of all
together. What a station hid is not there, and so is not drawn.
"""

from collections.abc import Mapping
from typing import Any

from policies.aggregates import AggregateOutput, ends_of
from policies.manifest import TrainManifest
from policies.rows import HIDDEN

_STAGES = ("analyse", "evaluate")


def described(manifest: TrainManifest) -> dict[str, dict[str, Any]]:
    """Return, by the key of each aggregate, what its table's lines and columns are."""
    return {
        item.key: {
            "measure": item.measure,
            "column": item.column,
            "by": item.by,
            "split": item.split.value,
            "lines": list(manifest.aggregate_lines(item)),
            "columns": list(manifest.aggregate_columns(item)),
            "ends": [] if item.measure == "sum" else list(ends_of(item, manifest.outputs.rows)),
            "hidden": HIDDEN,
        }
        for item in manifest.outputs.aggregates
    }


def drawable(manifest: TrainManifest, entry: Mapping[str, Any]) -> list[AggregateOutput]:
    """Return the aggregates of which a round has something to show."""
    return [item for item in manifest.outputs.aggregates if _tables(item, entry)]


def draw_table(place: Any, manifest: TrainManifest, item: AggregateOutput, entry: Mapping[str, Any]) -> None:  # noqa: ANN401 - matplotlib's Axes is untyped here
    """Draw one aggregate of a round: bars of counts, of means, or the intervals of quantiles."""
    lines, columns = manifest.aggregate_lines(item), manifest.aggregate_columns(item)
    found = _tables(item, entry)
    if item.measure == "quantiles":
        for number, (station, table) in enumerate(sorted(found.items())):
            for line, (low, high) in enumerate(table):
                label = station if line == 0 else None
                place.plot(
                    [low, high], [line + number / 8] * 2, linewidth=3, label=label, color=f"C{number % 10}"
                )
        place.set_yticks(range(len(lines)), lines)
        place.legend(fontsize=6)
    else:
        (table,) = found.values()
        series = (
            {"mean": [_mean(line) for line in table]}
            if item.measure == "sum"
            else {name: [line[place_] for line in table] for place_, name in enumerate(columns)}
        )
        for number, (name, values) in enumerate(series.items()):
            width = 0.8 / len(series)
            shown = [
                (line + number * width, value)
                for line, value in enumerate(values)
                if value is not None and value != HIDDEN
            ]
            if shown:
                place.bar(*zip(*shown, strict=True), width=width, label=name)
        place.set_xticks(range(len(lines)), lines, rotation=45, ha="right")
        if len(series) > 1:
            place.legend(fontsize=6)
    place.set_title(f"{item.key} ({item.measure})", fontsize=9)
    place.tick_params(labelsize=6)


def _mean(line: list[float]) -> float | None:
    patients, total, _ = line
    return total / patients if patients > 0 else None


def _tables(item: AggregateOutput, entry: Mapping[str, Any]) -> dict[str, list[Any]]:
    for stage in _STAGES:
        if item.measure == "quantiles":
            released = (entry.get("tables") or {}).get(stage) or {}
            found = {name: tables[item.key] for name, tables in released.items() if item.key in tables}
            pooled = ((entry.get("pooled_tables") or {}).get(stage) or {}).get(item.key)
            if not found and pooled is not None:
                found = {"all": pooled["table"]}
        else:
            summed = (entry.get("summed_tables") or {}).get(stage) or {}
            found = {"sum": summed[item.key]} if item.key in summed else {}
        if found:
            return found
    return {}
