"""The PACS: whether it answers, what it has, retrieving from it, and what was deleted there."""

import time
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import JsonOption, echo_json, new_app, say, say_table
from policies.errors import RefusedError, UnavailableError, UsageError
from station.cli.program import app
from station.cli.reaching import HomeOption, intake_api, read_file
from station.cli.tables import show_report

pacs_app = new_app("Ask the hospital's PACS, and retrieve from it.")
app.add_typer(pacs_app, name="pacs")

NameArgument = Annotated[str, typer.Argument(help="The name of a [[pacs]] in station.toml.")]
CollectionOption = Annotated[str, typer.Option(help="The collection the images belong to.")]
FirstOption = Annotated[str | None, typer.Option("--from", help="First study date, YYYY-MM-DD.")]
LastOption = Annotated[str | None, typer.Option("--to", help="Last study date, inclusive.")]
ModalityOption = Annotated[
    list[str] | None,
    typer.Option("--modality", help="CR, DX or CT; may be given more than once. All three unless told."),
]
BodyPartOption = Annotated[str, typer.Option(help="Only series of this Body Part Examined, such as CHEST.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is over.")]

_LOOK_S = 0.5


@pacs_app.command()
def echo(name: NameArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """See that a PACS answers (C-ECHO)."""
    show_report(intake_api(home).post(f"/v1/pacs/{_segment(name)}/echo", {}), as_json=as_json)


@pacs_app.command()
def query(
    name: NameArgument,
    home: HomeOption,
    first: FirstOption = None,
    last: LastOption = None,
    modality: ModalityOption = None,
    body_part: BodyPartOption = "",
    as_json: JsonOption = False,
) -> None:
    """How many studies a PACS has of a period (C-FIND)."""
    criteria = _criteria(first, last, modality, body_part)
    show_report(intake_api(home).post(f"/v1/pacs/{_segment(name)}/query", criteria), as_json=as_json)


@pacs_app.command()
def retrieve(
    name: NameArgument,
    home: HomeOption,
    collection: CollectionOption,
    accessions: Annotated[
        Path | None,
        typer.Option(
            help="A file of accession numbers: one a line, or a CSV with a column `accession`.",
            dir_okay=False,
        ),
    ] = None,
    first: FirstOption = None,
    last: LastOption = None,
    modality: ModalityOption = None,
    body_part: BodyPartOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Retrieve by a list of accession numbers, or by a query. It goes on after a stop of the station; again is harmless."""
    api = intake_api(home)
    path = f"/v1/pacs/{_segment(name)}"
    if accessions is not None:
        if first or last or body_part:
            raise UsageError("give a list of accession numbers or a query, not both")
        params: dict[str, Any] = {"collection": collection, "modality": modality or []}
        report = api.post_bytes(f"{path}/accessions", read_file(accessions), params)
    else:
        criteria = _criteria(first, last, modality, body_part)
        report = api.post(f"{path}/studies", {"collection": collection, "criteria": criteria})
    while wait and report["state"] == "running":
        time.sleep(_LOOK_S)
        report = api.get(f"/v1/retrievals/{report['job']}")
    _show_retrieval(report, as_json=as_json)
    if wait and report["state"] == "stopped":
        raise UnavailableError(
            f"the retrieval stopped: {report['reason']}",
            hint=f"Go on with `pht-station pacs resume {report['job']}`; the next start of the station does so too.",
        )


@pacs_app.command()
def resume(job: Annotated[str, typer.Argument()], home: HomeOption, as_json: JsonOption = False) -> None:
    """Go on with a retrieval that stopped or was cancelled."""
    _show_retrieval(intake_api(home).post(f"/v1/retrievals/{_segment(job)}/resume", {}), as_json=as_json)


@pacs_app.command()
def cancel(job: Annotated[str, typer.Argument()], home: HomeOption, as_json: JsonOption = False) -> None:
    """Leave a retrieval where it is; what came stays."""
    _show_retrieval(intake_api(home).post(f"/v1/retrievals/{_segment(job)}/cancel", {}), as_json=as_json)


@pacs_app.command()
def reconcile(
    name: NameArgument,
    home: HomeOption,
    collection: Annotated[str, typer.Option(help="A collection that comes from this PACS alone.")],
    confirm: Annotated[
        int | None,
        typer.Option(help="Remove up to this many instances, where they are more than a tenth.", min=1),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove here what was deleted in the PACS. Any fault of the PACS removes nothing."""
    api = intake_api(home)
    path = f"/v1/pacs/{_segment(name)}/reconcile"
    report = api.post(path, {"collection": collection, "confirmed": confirm})
    while report["state"] == "running":
        time.sleep(_LOOK_S)
        report = api.get(path)
    show_report(report, as_json=as_json)
    if report["state"] == "failed":
        raise UnavailableError(
            f"nothing was removed: {report['reason']}", hint="`pht-station pacs echo` asks it."
        )
    if report["state"] == "needs-confirmation":
        raise RefusedError(
            "RECONCILE_NEEDS_CONFIRMATION",
            f"{report['gone']} of {report['instances']} instances seem gone; nothing was removed",
            hint=f"Look in the PACS. If they are gone, run it again with --confirm {report['gone']}.",
        )


@pacs_app.command()
def status(home: HomeOption, as_json: JsonOption = False) -> None:
    """Every PACS and every retrieval, in counts."""
    api = intake_api(home)
    known, jobs = api.get("/v1/pacs"), api.get("/v1/retrievals")
    if as_json:
        echo_json({"pacs": known, "retrievals": jobs})
        return
    say_table(
        "PACS",
        ("name", "method", "may be asked now", "tasks waiting"),
        [[one["name"], one["method"], "yes" if one["open_now"] else "no", one["waiting"]] for one in known],
    )
    say_table(
        "Retrievals",
        ("job", "pacs", "collection", "state", "items", "instances", "why not"),
        [
            [
                job["job"], job["pacs"], job["collection"], f"{job['state']} {job['reason']}".strip(), _counts(job["items"]),
                f"{job['received']} of {job['expected']}", _counts(job["reasons"]),
            ]
            for job in jobs
        ],
    )  # fmt: skip


def _show_retrieval(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        echo_json(report)
        return
    say(f"{report['job']}: {report['state']} {report['reason']}".rstrip())
    say(f"  {_counts(report['items'])}; {report['received']} of {report['expected']} instances received")
    for reason, count in sorted(report["reasons"].items()):
        say(f"  {count} not whole: {reason}")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {key}" for key, count in sorted(counts.items()))


def _criteria(
    first: str | None, last: str | None, modality: list[str] | None, body_part: str
) -> dict[str, Any]:
    if first is None:
        raise UsageError("which studies?", hint="Give --accessions FILE, or --from and --to.")
    days = [_day(first), _day(last or first)]
    criteria: dict[str, Any] = {"first": days[0], "last": days[1], "body_part": body_part.upper()}
    if modality:
        criteria["modalities"] = [code.upper() for code in modality]
    return criteria


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise UsageError("a date is written YYYY-MM-DD") from None


def _segment(name: str) -> str:
    """Return a name as one part of a path."""
    if not name.replace("-", "").replace(".", "").replace("_", "").isalnum():
        raise UsageError("that is no name of a PACS or of a retrieval")
    return name
