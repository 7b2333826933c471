"""Labels: masks on images that are here."""

from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import JsonOption, echo_json, new_app, say
from policies.errors import DataError, ExitCode
from station.cli.program import app
from station.cli.reaching import HomeOption, intake_api, operator_name, read_file
from station.cli.tables import show_report

labels_app = new_app("Masks on images: NIfTI files of a folder; DICOM Segmentations come in as images do.")
app.add_typer(labels_app, name="labels")


@labels_app.command("import")
def labels_import(
    folder: Annotated[
        Path, typer.Argument(help="The folder of the masks (.nii, .nii.gz).", exists=True, file_okay=False)
    ],
    mapping: Annotated[
        Path,
        typer.Option(help="file,patient_id,accession,names: which is whose.", exists=True, dir_okay=False),
    ],
    collection: Annotated[str, typer.Option(help="The collection of their images.")],
    home: HomeOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is wrong.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check masks against the series they were drawn on and hand them over, all or none. Again changes nothing."""
    from station.intake.clinical.labels.table import read_labels  # noqa: PLC0415

    rows = read_labels(read_file(mapping), file=mapping.name)
    files = {row.file: folder / row.file for row in rows}
    absent = sorted(name for name, path in files.items() if not path.is_file() or path.is_symlink())
    if absent:
        raise DataError(
            f"{len(absent)} of {len(files)} files are not in the folder",
            hint="Correct the table or the folder.",
        )
    api = intake_api(home)
    held = {
        name: api.post_bytes("/v1/labels/files", read_file(path), {})["file"] for name, path in files.items()
    }
    body: dict[str, Any] = {
        "collection": collection,
        "operator": operator_name(),
        "dry_run": dry_run,
        "rows": [
            {
                "line": row.line, "file": held[row.file], "patient_id": row.patient_id, "issuer": row.issuer,
                "accession": row.accession, "series_instance_uid": row.series_instance_uid, "names": list(row.names),
            }
            for row in rows
        ],
    }  # fmt: skip
    report = api.post("/v1/labels", body)
    if as_json:
        echo_json(report)
    else:
        problems = report.pop("problems")
        show_report(report, as_json=False)
        for problem in problems:
            say(f"  line {problem['line']}: {problem['says']}")
        report["problems"] = problems
    if report["problems"]:
        raise typer.Exit(int(ExitCode.DATA))


@labels_app.command("status")
def labels_status(home: HomeOption, as_json: JsonOption = False) -> None:
    """How many masks were handed over, and why segmentations wait."""
    report = intake_api(home).get("/v1/labels")
    if as_json:
        echo_json(report)
        return
    say(f"{report['handed_over']} masks handed over.")
    for reason, count in report["waiting"].items():
        say(f"  {count} segmentations wait: {reason}")
