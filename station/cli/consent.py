"""The consent register, and whose data were used in which study. What names a patient is for the operator alone."""

from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import JsonOption, echo_json, new_app, say, say_table
from policies.errors import UsageError
from station.cli.program import app
from station.cli.reaching import HomeOption, compute_api, intake_api, read_file, write_new
from station.cli.tables import show_report

consent_app = new_app("The consent register: who agreed to what, per purpose.")
usage_app = new_app(
    "Whose data were used in which study: for the note in the patient's file, and for who asks."
)
app.add_typer(consent_app, name="consent")
app.add_typer(usage_app, name="usage")

_FORMATS = {".csv": "csv", ".json": "fhir", ".ndjson": "ndjson"}


@consent_app.command("import")
def consent_import(
    file: Annotated[
        Path,
        typer.Argument(
            help="The whole register: .csv (patient_id,decision,purpose,date), or FHIR R4 as .json or .ndjson.",
            exists=True,
            dir_okay=False,
        ),
    ],
    home: HomeOption,
    source_date: Annotated[
        str | None,
        typer.Option(help="When it was read at its source, as 2026-01-31T12:00:00Z; now unless told."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Replace what the register states; an objection that the file forgets stays. Counts at the next message."""
    form = _FORMATS.get(file.suffix.lower())
    if form is None:
        raise UsageError(f"a register is {', '.join(_FORMATS)}", hint="Name the file by what it holds.")
    params = {"format": form} | ({"source_date": source_date} if source_date else {})
    show_report(intake_api(home).post_bytes("/v1/consent", read_file(file), params), as_json=as_json)


@consent_app.command("patients")
def consent_patients(
    file: Annotated[
        Path,
        typer.Argument(
            help="patient_id,birth_date,deceased and, if need be, issuer", exists=True, dir_okay=False
        ),
    ],
    home: HomeOption,
    as_json: JsonOption = False,
) -> None:
    """Add birth dates and deaths: whose word counts depends on them."""
    report = intake_api(home).post_bytes("/v1/consent/patients", read_file(file), {})
    show_report(report, as_json=as_json)


@consent_app.command("show")
def consent_show(
    home: HomeOption,
    patient_id: Annotated[str, typer.Option(help="The hospital's id of the patient.")],
    issuer: Annotated[
        str | None, typer.Option(help="Who gave the id out; everybody of that id unless told.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What the register says of a patient today, why, and since when; audited."""
    view = intake_api(home).post("/v1/consent/show", {"patient_id": patient_id, "issuer": issuer})
    if as_json:
        echo_json(view)
        return
    for card in view["patients"]:
        issued = f"issuer {card['issuer']}" if card["issuer"] else "no issuer"
        say_table(
            f"{issued}; images here: {'yes' if card['images_here'] else 'no'}",
            ("purpose", "answer", "ground", "decided on"),
            [[row["purpose"], row["answer"], row["ground"], row["made"] or "-"] for row in card["answers"]],
        )
    columns = ("imported_at", "source", "stated", "issuer", "purpose", "decision", "made", "given_by", "valid_from",
               "valid_until")  # fmt: skip
    rows = [["" if row[key] is None else str(row[key]) for key in columns] for row in view["history"]]
    say_table("History", columns, rows)


@consent_app.command("status")
def consent_status(home: HomeOption, as_json: JsonOption = False) -> None:
    """The register in counts: how old, how many, and on what grounds patients count or not."""
    view: dict[str, Any] = intake_api(home).get("/v1/consent/status")
    if as_json:
        echo_json(view)
        return
    grounds = view.pop("grounds")
    show_report(view, as_json=False)
    say_table("Patients with images here", ("ground", "patients"), sorted(grounds.items()))


@usage_app.command("export")
def usage_export(
    out: Annotated[Path, typer.Argument(help="A new file.")],
    home: HomeOption,
    policy: Annotated[str | None, typer.Option(help="One policy only.")] = None,
) -> None:
    """Write the signed list of uses by pseudonym, for `usage resolve`."""
    query = f"?policy={policy}" if policy else ""
    write_new(out, compute_api(home).get_bytes(f"/v1/usage{query}"))


@usage_app.command("resolve")
def usage_resolve(
    file: Annotated[Path, typer.Argument(help="What `usage export` wrote.", exists=True, dir_okay=False)],
    home: HomeOption,
    out: Annotated[Path, typer.Option(help="A new CSV file; it names patients.")],
    patient_id: Annotated[str | None, typer.Option(help="The one patient who asks.")] = None,
    issuer: Annotated[str | None, typer.Option(help="Who gave that id out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which patients were in which study; audited."""
    if issuer is not None and patient_id is None:
        raise UsageError("--issuer goes with --patient-id")
    body = {
        "usage_list": read_file(file).decode("utf-8", "replace"),
        "patient_id": patient_id,
        "issuer": issuer,
    }
    view = intake_api(home).post("/v1/usage/resolve", body)
    write_new(out, view["csv"].encode())
    report = {"lines": view["lines"], "unknown_pseudonyms": view["unknown"]}
    if as_json:
        echo_json(report)
        return
    say(f"{view['lines']} lines written to {out.name}, which only you may read.")
    if view["unknown"]:
        say(f"{view['unknown']} pseudonyms of the list are nobody's here.")
