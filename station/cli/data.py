"""Data in: images, consent, clinical data, and what there is."""

import time
from pathlib import Path
from typing import Annotated

import typer

from policies.console import JsonOption, echo_json, new_app, say, say_table
from station.cli.program import app
from station.cli.reaching import HomeOption, compute_api, intake_api, read_file
from station.cli.tables import show_report

consent_app = new_app("The consent register.")
clinical_app = new_app("Clinical data from eCRF exports.")
app.add_typer(consent_app, name="consent")
app.add_typer(clinical_app, name="clinical")


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


@consent_app.command("import")
def consent_import(
    csv: Annotated[
        Path, typer.Argument(help="patient_id,decision,purpose,date", exists=True, dir_okay=False)
    ],
    home: HomeOption,
    as_json: JsonOption = False,
) -> None:
    """Replace the consent state by a register's export; takes effect at the next message."""
    show_report(intake_api(home).post_bytes("/v1/consent", read_file(csv), {}), as_json=as_json)


@clinical_app.command("import")
def clinical_import(
    csv: Annotated[Path, typer.Argument(help="An eCRF export.", exists=True, dir_okay=False)],
    collection: Annotated[str, typer.Option(help="The collection its patients belong to.")],
    home: HomeOption,
    as_json: JsonOption = False,
) -> None:
    """Link clinical data to the images' pseudonyms."""
    report = intake_api(home).post_bytes("/v1/clinical", read_file(csv), {"collection": collection})
    show_report(report, as_json=as_json)


@app.command()
def catalogue(home: HomeOption, as_json: JsonOption = False) -> None:
    """What the station holds."""
    rows = compute_api(home).get("/v1/catalogue")
    if as_json:
        echo_json(rows)
        return
    columns = ("name", "patients", "studies", "images")
    say_table("Collections", columns, [[row[key] for key in columns] for row in rows])
