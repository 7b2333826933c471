"""The quarantine: what waits for a person, and what that person decides."""

import base64
from pathlib import Path
from typing import Annotated

import typer

from policies.console import JsonOption, echo_json, new_app, say, say_table
from policies.errors import UsageError
from station.cli.program import app
from station.cli.reaching import HomeOption, intake_api, operator_name, read_file, write_new
from station.cli.tables import show_report

quarantine_app = new_app("Files that could not be taken up, and wait for a person.")
merge_app = new_app("Merges of patients.")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(merge_app, name="merge")

IdArgument = Annotated[str, typer.Argument(help="The file's id, as `quarantine list` shows it.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, in your words; kept in intake's audit.")]
_BOX_NUMBERS = 4


@quarantine_app.command("list")
def quarantine_list(
    home: HomeOption,
    reason: Annotated[str | None, typer.Option(help="Only files of this reason code.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, oldest first.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """How many files wait, for what reason, and which."""
    query = f"?limit={limit}" + (f"&reason={reason}" if reason else "")
    view = intake_api(home).get(f"/v1/quarantine{query}")
    if as_json:
        echo_json(view)
        return
    for code, count in sorted(view["counts"].items()):
        say(f"{count:7} {code}")
    columns = ("id", "reason", "collection", "since")
    say_table("Waiting", columns, [[row[key] for key in columns] for row in view["files"]])


@quarantine_app.command("show")
def quarantine_show(
    file: IdArgument,
    home: HomeOption,
    thumbnail: Annotated[
        Path | None,
        typer.Option(help="Also write a small picture (PNG, 0600) here: it may show a name. Audited."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why the picture is looked at.")] = "review",
    as_json: JsonOption = False,
) -> None:
    """Technical facts of one file: nothing in them names a patient."""
    api = intake_api(home)
    view = api.get(f"/v1/quarantine/{file}")
    if thumbnail is not None:
        asked = {"operator": operator_name(), "reason": reason}
        picture = api.post(f"/v1/quarantine/{file}/thumbnail", asked)
        write_new(thumbnail, base64.b64decode(picture["png"]))
    facts = view.pop("facts")
    facts.pop("kind")
    show_report(view | facts, as_json=as_json)


@quarantine_app.command("release")
def quarantine_release(
    file: IdArgument,
    home: HomeOption,
    reason: ReasonOption,
    box: Annotated[
        list[str] | None,
        typer.Option(help="Mask left,top,width,height (pixels) before; may be given again."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take a file up after you have looked at it: its pixels are then your word."""
    body = {"operator": operator_name(), "reason": reason, "boxes": [_box(text) for text in box or ()]}
    show_report(intake_api(home).post(f"/v1/quarantine/{file}/release", body), as_json=as_json)


@quarantine_app.command("discard")
def quarantine_discard(
    file: IdArgument, home: HomeOption, reason: ReasonOption, as_json: JsonOption = False
) -> None:
    """Throw a file away."""
    body = {"operator": operator_name(), "reason": reason}
    show_report(intake_api(home).post(f"/v1/quarantine/{file}/discard", body), as_json=as_json)


@merge_app.command("import")
def merge_import(
    file: Annotated[
        Path,
        typer.Argument(
            help="HL7 v2 ADT^A40 messages, or a CSV: old_issuer,old_id,new_issuer,new_id",
            exists=True,
            dir_okay=False,
        ),
    ],
    home: HomeOption,
    as_json: JsonOption = False,
) -> None:
    """Reunite pseudonyms: the surviving patient's counts from now on. Merges are not undone."""
    show_report(intake_api(home).post_bytes("/v1/merges", read_file(file), {}), as_json=as_json)


def _box(text: str) -> dict[str, int]:
    parts = text.split(",")
    if len(parts) != _BOX_NUMBERS or not all(part.strip().isdecimal() for part in parts):
        raise UsageError("a box is left,top,width,height in pixels", hint="For example --box 0,0,200,40.")
    left, top, width, height = (int(part) for part in parts)
    return {"left": left, "top": top, "width": width, "height": height}
