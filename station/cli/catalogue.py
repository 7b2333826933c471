"""What there is: counts inside, what is told outside, and the two documents that tell it."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import JsonOption, echo_json, new_app, say, say_table
from policies.errors import StorageError, UsageError
from station.cli.program import app
from station.cli.reaching import GroupHomeOption, HomeOption, compute_api, named

catalogue_app = new_app("What the station holds.")
profile_app = new_app("What the station tells about itself.")
app.add_typer(catalogue_app, name="catalogue", invoke_without_command=True)
app.add_typer(profile_app, name="profile")

_CONDITION = re.compile(r"([a-z][a-z0-9_]{0,63})(<=|>=|!=|=|<|>)(.{1,32})")
_RANGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)?(\.\.)?([0-9]+(?:\.[0-9]+)?)?")
_COUNTS = ("collection", "patients", "studies", "series", "images")


@catalogue_app.callback()
def catalogue(
    context: typer.Context,
    home: GroupHomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the station holds; without a subcommand, its collections in rounded counts."""
    if context.invoked_subcommand is not None:
        return
    rows = compute_api(named(home)).get("/v1/catalogue")
    if as_json:
        echo_json(rows)
        return
    columns = ("name", "patients", "studies", "images")
    say_table("Collections", columns, [[row[key] for key in columns] for row in rows])


@catalogue_app.command("query")
def query(
    home: HomeOption,
    collection: Annotated[str | None, typer.Option(help="One collection; all without.")] = None,
    modality: Annotated[list[str] | None, typer.Option(help="CT, DX, CR; may be given again.")] = None,
    body_part: Annotated[list[str] | None, typer.Option(help="As in CHEST.")] = None,
    view: Annotated[list[str] | None, typer.Option(help="As in PA.")] = None,
    manufacturer: Annotated[list[str] | None, typer.Option(help="As the files name it.")] = None,
    kernel: Annotated[
        list[str] | None, typer.Option(help="Convolution kernel, as the files name it.")
    ] = None,
    slice_thickness: Annotated[
        str | None, typer.Option(help="In millimetres: 1, 1..2.5, ..2.5 or 1..")
    ] = None,
    year: Annotated[str | None, typer.Option(help="Of the shifted study date: 2019 or 2019..2021.")] = None,
    rows: Annotated[str | None, typer.Option(help="Rows of the image: 512 or 512..")] = None,
    columns: Annotated[str | None, typer.Option(help="Columns of the image.")] = None,
    mask: Annotated[bool | None, typer.Option("--mask/--no-mask", help="With or without a mask.")] = None,
    face: Annotated[str | None, typer.Option(help="Recognizable face: yes, no or unknown.")] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(help="A clinical field, as in pneumonia=1 or age>=40; may be given again."),
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Of the clinical fields, as in thorax-1@1.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Count patients, studies, series and images that meet every condition; exact, and for inside only."""
    listed = {
        "modality": modality, "body_part": body_part, "view": view, "manufacturer": manufacturer, "kernel": kernel,
        "collection": collection, "recognizable_face": face, "profile": profile, "has_mask": mask,
    }  # fmt: skip
    ranges = {"slice_thickness_mm": slice_thickness, "year": year, "rows": rows, "columns": columns}
    asked: dict[str, Any] = {key: value for key, value in listed.items() if value is not None}
    asked |= {key: _range(key, text) for key, text in ranges.items() if text is not None}
    if field:
        asked["clinical"] = [_condition(text) for text in field]
    found = compute_api(home).post("/v1/catalogue/query", asked)
    if as_json:
        echo_json(found)
        return
    say_table("Exactly; not for outside", _COUNTS, [[row[key] for key in _COUNTS] for row in found])


@catalogue_app.command("told")
def told(home: HomeOption, as_json: JsonOption = False) -> None:
    """The table of counts as it is told outside: rounded, and changed seldom."""
    found = compute_api(home).get("/v1/catalogue/told")
    if as_json:
        echo_json(found)
        return
    modalities = sorted({modality for row in found for modality in row["images"]})
    say_table(
        "Told outside",
        ("collection", "patients", "studies", *modalities),
        [
            [row["collection"], row["patients"], row["studies"], *(row["images"][one] for one in modalities)]
            for row in found
        ],
    )


@catalogue_app.command("dcat")
def dcat(
    home: HomeOption,
    out: Annotated[Path, typer.Option("--out", help="The JSON-LD file to write.", dir_okay=False)],
) -> None:
    """Describe the collections for a data catalogue (HealthDCAT-AP); its numbers are those that are told outside."""
    _write(out, compute_api(home).post_for_bytes("/v1/catalogue/dcat"))


@profile_app.command("export")
def profile_export(
    out: Annotated[Path, typer.Argument(help="The file to write.", dir_okay=False)], home: HomeOption
) -> None:
    """Write the hospital's rules and rounded counts, signed: so that others can ask whether a train would run here."""
    _write(out, compute_api(home).post_for_bytes("/v1/profile"))


def _range(name: str, text: str) -> dict[str, float]:
    match = _RANGE.fullmatch(text)
    if not text or match is None or not (match[1] or match[3]):
        raise UsageError(f"{name.replace('_', '-')}: not a range", hint="Write 1, 1..2.5, ..2.5 or 1..")
    if match[2] is None:
        return {"minimum": float(text), "maximum": float(text)}
    ends = {"minimum": match[1], "maximum": match[3]}
    return {key: float(value) for key, value in ends.items() if value}


def _condition(text: str) -> dict[str, Any]:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise UsageError("--field: not a condition", hint="Write pneumonia=1, sex!=F or age>=40.")
    return {"field": match[1], "operator": match[2], "value": _value(match[3])}


def _value(text: str) -> bool | int | float | str:
    if text in {"true", "false"}:
        return text == "true"
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _write(out: Path, data: bytes) -> None:
    try:
        out.write_bytes(data)
    except OSError as error:
        raise StorageError(f"{out.name} cannot be written ({error.strerror})") from error
    say(f"Written: {out.name}")
