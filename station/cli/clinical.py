"""Clinical data and labels: exports of the eCRF, masks."""

from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import JsonOption, echo_json, new_app, say, say_table
from policies.errors import ExitCode
from station.cli.program import app
from station.cli.reaching import HomeOption, intake_api, operator_name, read_file
from station.cli.tables import show_report

clinical_app = new_app("Clinical data from eCRF exports, and what is on record of a patient.")
app.add_typer(clinical_app, name="clinical")

CsvArgument = Annotated[Path, typer.Argument(help="An eCRF export.", exists=True, dir_okay=False)]
MappingOption = Annotated[
    Path | None,
    typer.Option(
        "--mapping",
        help="How to read it (YAML); without, the plain format with a profile's own columns.",
        exists=True,
        dir_okay=False,
    ),
]
ProfileOption = Annotated[
    str | None, typer.Option(help="The minimal-dataset profile of a plain export, such as thorax-1@1.")
]


@clinical_app.command("import")
def clinical_import(
    csv: CsvArgument,
    collection: Annotated[str, typer.Option(help="The collection its patients belong to.")],
    home: HomeOption,
    mapping: MappingOption = None,
    profile: ProfileOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is in it and what is wrong with it.")
    ] = False,
    skip_wrong_rows: Annotated[
        bool,
        typer.Option("--skip-wrong-rows", help="Leave wrong rows out; otherwise one refuses the export."),
    ] = False,
    complete: Annotated[
        bool, typer.Option("--complete", help="It names all rows there are: the others lose what it covers.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Link clinical data to the images' pseudonyms. Again changes nothing; corrections keep what was said before."""
    api, data = intake_api(home), read_file(csv)
    params = {"profile": profile} if profile else {}
    if mapping is not None:
        params["mapping"] = api.post_bytes("/v1/clinical/mappings", read_file(mapping), {})["digest"]
    if dry_run:
        report = api.post_bytes("/v1/clinical/validation", data, params)
        _show_validation(report, as_json=as_json)
        if report["refused"]:
            raise typer.Exit(int(ExitCode.DATA))
        return
    params |= {
        "collection": collection,
        "operator": operator_name(),
        "skip_wrong_rows": str(skip_wrong_rows).lower(),
        "complete": str(complete).lower(),
    }
    report = api.post_bytes("/v1/clinical", data, params)
    if as_json:
        echo_json(report)
        return
    validation = report.pop("validation")
    show_report(report, as_json=False)
    if validation["refused"]:
        _show_validation(validation, as_json=False)


@clinical_app.command("mappings")
def clinical_mappings(home: HomeOption, as_json: JsonOption = False) -> None:
    """The mapping files that were used here."""
    rows = intake_api(home).get("/v1/clinical/mappings")
    if as_json:
        echo_json(rows)
        return
    columns = ("name", "source", "profile", "digest")
    say_table("Mappings", columns, [[row[key] for key in columns] for row in rows])


@clinical_app.command("example")
def clinical_example(
    name: Annotated[str | None, typer.Argument(help="Which one; without, their names.")] = None,
) -> None:
    """A mapping file to begin from: one for Castor, one for OpenClinica."""
    from station.intake.clinical.mapping import shipped_mapping, shipped_mappings  # noqa: PLC0415

    if name is None:
        for known in shipped_mappings():
            say(known)
    else:
        say(shipped_mapping(name).decode().rstrip())


@clinical_app.command("history")
def clinical_history(
    patient: Annotated[str, typer.Option(help="The hospital's own patient id.")],
    home: HomeOption,
    issuer: Annotated[str | None, typer.Option(help="Who issued it, where several did.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What was imported of one patient and what each import changed; that you asked is audited."""
    asked = {"patient_id": patient, "issuer": issuer, "operator": operator_name()}
    rows = intake_api(home).post("/v1/clinical/history", asked)
    if as_json:
        echo_json(rows)
        return
    for row in rows:
        about = row["accession"] or row["day"] or "all studies"
        say(f"{row['collection']}, {row['profile']}, {about}")
        for version in row["versions"]:
            say(
                f"  {version['version']}. {version['imported_at']} by {version['imported_by'] or 'nobody named'}, "
                f"import {version['import_id']} ({version['mapping']}, {version['source_digest'][:19]})"
            )
            for change in version["changes"]:
                say(f"       {change['field']}: {change['before']} -> {change['after']}")


def _show_validation(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        echo_json(report)
        return
    say(
        f"{report['accepted']} of {report['rows']} rows are right; {report['skipped']} left out by the mapping."
    )
    rows = [
        [
            entry["field"], entry["present"], entry["missing"],
            ", ".join(f"{count} {fault}" for fault, count in sorted(entry["wrong"].items())),
        ]
        for entry in report["fields"]
    ]  # fmt: skip
    say_table("Fields", ("field", "present", "missing", "wrong"), rows)
    for problem in report["problems"]:
        where = f"line {problem['line']}" + (f", column {problem['column']}" if problem["column"] else "")
        say(f"  {where}: {problem['says']}")
    if report["wrong_cells"] > len(report["problems"]):
        say(f"  ... and {report['wrong_cells'] - len(report['problems'])} more")
