"""What the demo shows of a run's figures, and the summary it leaves behind."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SUPPRESSED = "suppressed"
HIDDEN = -1
"""What stands in a table where too few patients were counted (`policies.rows.HIDDEN`)."""


def shown(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else SUPPRESSED if value is None else str(value)


def show_rounds(console: Console, metrics: dict[str, Any]) -> None:
    """Per round: who took part, loss, validation AUC per hospital and weighted mean, seconds."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    stations = sorted({name for entry in metrics["rounds"] for name in entry["took_part"]})
    for column in (
        "round",
        "took part",
        "loss",
        *(f"AUC {name}" for name in stations),
        "AUC mean",
        "compute s",
        "overhead s",
    ):
        table.add_column(column)
    for entry in metrics["rounds"]:
        compute = sum(
            max(stage.values(), default=0.0)
            for stage in entry["compute_s"].values()
            if isinstance(stage, dict)
        )
        table.add_row(
            str(entry["round"]),
            f"{len(entry['took_part'])} of {len(entry['took_part']) + len(entry['missing'])}",
            shown(entry["means"].get("train", {}).get("loss")),
            *(shown(entry["evaluate"].get(name, {}).get("auc")) for name in stations),
            shown(entry["means"].get("evaluate", {}).get("auc")),
            f"{compute:.0f}",
            f"{max(0.0, entry['wall_s'] - compute):.1f}",
        )
    console.print(table)
    console.print(
        "  AUC on validation patients; 'suppressed' where a hospital has fewer of them than the policy's minimum.\n"
        "  Compute is what stations tell, rounded up to the policy's quantum; overhead is the rest of the round's time."
    )


def show_test(console: Console, metrics: dict[str, Any]) -> None:
    """The test AUC per hospital, and pooled from the released histograms of patients where the counts allow."""
    entry = metrics["rounds"][-1]
    for name in entry["took_part"]:
        console.print(f"  {name}: test AUC {shown(entry['evaluate'].get(name, {}).get('auc'))}")
    pooled = pooled_auc(entry)
    metrics["pooled_auc"] = pooled
    if pooled is None:
        console.print(
            "  pooled test AUC: not to be had. The score histogram left no hospital whose cells are all large enough"
            " (RELEASE_CELL_TOO_SMALL)"
            if not any(entry["tables"].get("evaluate", {}).values())
            else "  pooled test AUC: not to be had from all hospitals; some hospitals hid cells of theirs, or the table whole (RELEASE_CELL_TOO_SMALL)"
        )
    else:
        console.print(f"  pooled test AUC from the released score histograms: {pooled:.4f}")


def pooled_auc(entry: dict[str, Any]) -> float | None:
    """AUC (ties count half) of the summed histogram of scores, or None unless every hospital released its own."""
    tables = entry["tables"].get("evaluate", {})
    if not entry["took_part"] or any(
        "score_histogram" not in tables.get(name, {}) for name in entry["took_part"]
    ):
        return None
    rows = [tables[name]["score_histogram"] for name in entry["took_part"]]
    if any(cell == HIDDEN for table in rows for line in table for cell in line):
        return None
    summed = [[sum(table[i][j] for table in rows) for j in range(2)] for i in range(len(rows[0]))]
    negatives = sum(row[0] for row in summed)
    positives = sum(row[1] for row in summed)
    if not negatives or not positives:
        return None
    below = wins = 0.0
    for negative, positive in summed:
        wins += positive * (below + negative / 2)
        below += negative
    return wins / (negatives * positives)


def write_summary(output: Path, facts: dict[str, Any], seconds: dict[str, float], collection: str) -> None:
    """Leave every figure shown in one file."""
    summary = {"collection": collection, "seconds": seconds, **facts}
    (output / "summary.json").write_text(json.dumps(summary, indent=2, sort_keys=True, default=str) + "\n")
