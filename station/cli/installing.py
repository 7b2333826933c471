"""Making a station, running it, and asking whether it is well."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from policies.console import JsonOption, echo_json, say
from policies.errors import UsageError
from station.cli.program import app
from station.cli.reaching import HomeOption, compute_api, read_file, station_paths


class MarkingChoice(StrEnum):
    """What kind of data a collection is."""

    PATIENT = "patient"
    PUBLIC = "public"
    SYNTHETIC = "synthetic"


class ApprovalChoice(StrEnum):
    """Which trains wait for the operator."""

    ALWAYS = "always"
    TRAINING = "training"
    NEVER = "never"


@app.command()
def init(
    home: Annotated[Path, typer.Argument(help="A new folder for the station.")],
    name: Annotated[str, typer.Option(help="The station's name in the board's register.")],
    orchestrator: Annotated[str, typer.Option(help="The orchestrator's address, https://host:port.")],
    ca: Annotated[
        Path,
        typer.Option(help="The certificate authority to trust for it (PEM).", exists=True, dir_okay=False),
    ],
    root: Annotated[
        Path,
        typer.Option(
            help="The board's root metadata, received by a trusted way.", exists=True, dir_okay=False
        ),
    ],
    collection: Annotated[list[str], typer.Option(help="A collection to offer; may be given again.")],
    marking: Annotated[
        MarkingChoice, typer.Option(help="patient, public or synthetic: what the collections are.")
    ] = MarkingChoice.PATIENT,
    approval: Annotated[
        ApprovalChoice, typer.Option(help="Trains that need the operator: always, training or never.")
    ] = ApprovalChoice.ALWAYS,
    separation: Annotated[str, typer.Option(help="users (needs root), none, or auto.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Make a station: users, folders, keys, settings; pins the board's root."""
    from station.installation import Choices, first_settings, install  # noqa: PLC0415 - starts faster without

    separated = _separated(separation)
    settings = first_settings(
        Choices(name, orchestrator, tuple(collection), marking.value, approval.value, separated)
    )
    card = install(home, settings, read_file(root), read_file(ca))
    if as_json:
        echo_json(card)
        return
    say(f"Station {card.name} is ready in {home}.")
    say(f"  identity key  {card.identity_key}")
    say(f"  for the board {home / 'card.json'}")
    if not separated:
        say(
            "  separation    none: intake, compute and launcher share one user (run as root to separate them)"
        )


def _separated(word: str) -> bool:
    root = os.geteuid() == 0
    if word == "users" and not root:
        raise UsageError("--separation users needs root", hint="Run as root, or give --separation none.")
    if word not in {"users", "none", "auto"}:
        raise UsageError(f"unknown separation {word!r}", hint="users, none or auto.")
    return root and word != "none"


@app.command()
def serve(home: HomeOption) -> None:
    """Run intake, compute with its agent, and the launcher, until stopped."""
    from station.serving import serve_station  # noqa: PLC0415

    serve_station(station_paths(home).home)


@app.command()
def status(home: HomeOption, as_json: JsonOption = False) -> None:
    """Is the station well?"""
    view = compute_api(home).get("/v1/status")
    if as_json:
        echo_json(view)
        return
    for key, value in view.items():
        say(f"{key.replace('_', ' '):22} {value if value is not None else '-'}")
