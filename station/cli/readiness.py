"""Readiness: what would stop a train, before one comes."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import JsonOption, echo_json, say, say_table
from policies.errors import StateError, UsageError
from station.cli.program import app
from station.cli.reaching import HomeOption, compute_api, read_file

_PAUSE_S = 0.2


@app.command()
def readiness(
    home: HomeOption,
    collection: Annotated[
        str | None, typer.Option(help="One collection; all that are offered without.")
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option("--for", help="A train.yaml: what would stop this train.", exists=True, dir_okay=False),
    ] = None,
    minimum: Annotated[int, typer.Option(help="Fewer patients that are ready are too few.", min=1)] = 10,
    series: Annotated[bool, typer.Option("--series", help="Name each series that something stops.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What would stop a train, per collection and per series, with what to do about it."""
    asked: dict[str, Any] = {"collection": collection, "minimum_patients": minimum}
    if train is not None:
        try:
            asked["manifest"] = read_file(train).decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{train.name} is not UTF-8 text") from error
    api = compute_api(home)
    report = api.post("/v1/readiness", asked)
    while not report["finished"] and not report["failed"]:
        time.sleep(_PAUSE_S)
        report = api.get("/v1/readiness")
        _progress(report, as_json=as_json)
    if report["failed"]:
        raise StateError("readiness: the look failed", hint="The log of compute says where.")
    if as_json:
        echo_json(report)
        return
    for row in report["collections"]:
        _show(row)
    if series:
        columns = ("collection", "series", "what stops it")
        rows = [
            [one["collection"], one["series"], ", ".join(f"{why} ({n})" for why, n in one["reasons"].items())]
            for one in report["series"]
        ]
        say_table("Series that something stops", columns, rows)
        if report["series_not_listed"]:
            say(f"and {report['series_not_listed']} more")


def _show(row: dict[str, Any]) -> None:
    say_table(
        f"{row['collection']}: {row['ready_series']} of {row['series']} series ready, "
        f"{row['ready_patients']} of {row['patients']} patients",
        ("what stops a train", "series", "files", "patients", "what to do"),
        [
            [one[key] for key in ("reason", "series", "files", "patients", "advice")]
            for one in row["obstacles"]
        ],
    )


def _progress(report: dict[str, Any], *, as_json: bool) -> None:
    if not as_json and sys.stderr.isatty():
        sys.stderr.write(f"\r{report['done']} of {report['total']} series")
        sys.stderr.write("\n" if report["finished"] else "")
