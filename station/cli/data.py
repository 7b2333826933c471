"""Data in: images."""

import time
from pathlib import Path
from typing import Annotated

import typer

from policies.console import JsonOption, echo_json, say
from station.cli.program import app
from station.cli.reaching import HomeOption, intake_api


@app.command()
def ingest(
    source: Annotated[Path, typer.Argument(help="A folder of DICOM files, or a .zip of one.", exists=True)],
    collection: Annotated[str, typer.Option(help="The collection they belong to.")],
    home: HomeOption,
    as_json: JsonOption = False,
) -> None:
    """Take a folder or zip of images in: spooled, pseudonymised, handed over. Again is harmless."""
    from station.intake.staging import stage  # noqa: PLC0415

    intake = intake_api(home)
    batch = stage(home.resolve(), source)
    report = intake.post("/v1/batches", {"batch": batch, "collection": collection})
    while not report["finished"]:
        time.sleep(0.2)
        report = intake.get(f"/v1/batches/{batch}")
    if as_json:
        echo_json(report)
        return
    say(f"{report['handed_over']} of {report['files']} files pseudonymised and handed over.")
    for reason, count in sorted(report["quarantined"].items()):
        say(f"  {count} in quarantine: {reason}")
