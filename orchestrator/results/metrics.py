"""The released numbers of a run as documents: all of them as JSON, and the metrics as a tidy table, a number a line."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.results.facts import Facts
from orchestrator.results.shown import STAGES
from orchestrator.results.tables import described

COLUMNS = ("round", "stage", "station", "metric", "value", "code")
POOLED = "(pooled)"
"""Stands where a station's name would: no station may be called so."""


def metrics_document(facts: Facts) -> dict[str, Any]:
    """All released numbers of a run, per round, as its policy has them shown."""
    accepted, rounds = facts.accepted, list(facts.rounds)
    return {
        "schema_version": 1,
        "order_digest": accepted.order_digest,
        "train": {"name": accepted.manifest.name, "version": accepted.manifest.version},
        "stages": list(accepted.order.stages),
        "stations": list(accepted.order.stations),
        "station_results": accepted.release.station_results,
        "complete": facts.complete,
        "counts": {
            "rounding": accepted.release.count_rounding,
            "noise": accepted.release.differential_privacy is not None,
        },
        "tables": described(accepted.manifest),
        "rounds": rounds,
        "final": rounds[-1].get("means", {}) if rounds else {},
    }


def metrics_table(facts: Facts) -> bytes:
    """The metrics as CSV: what each station released where that is shown, what is pooled, and who is missing with the code."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in facts.rounds:
        writer.writerows(_lines(entry))
    return text.getvalue().encode()


def _lines(entry: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    number = entry.get("round")
    withheld = entry.get("withheld") or {}
    for stage in STAGES:
        for station, values in sorted((entry.get(stage) or {}).items()):
            for metric, value in sorted(values.items()):
                yield number, stage, station, metric, repr(float(value)), ""
        means = (entry.get("means") or {}).get(stage) or {}
        for metric in sorted({*means, *(withheld.get(stage) or {})}):
            value = repr(float(means[metric])) if metric in means else ""
            yield number, stage, POOLED, metric, value, (withheld.get(stage) or {}).get(metric, "")
    for station, code in sorted((entry.get("missing") or {}).items()):
        yield number, "", station, "", "", code
