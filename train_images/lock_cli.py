"""`pht-train lock`: the closed list of a train's own packages. Parses, calls one use case, renders."""

from pathlib import Path
from typing import Annotated

import typer

from policies.console import JsonOption, echo_json, say


def add_lock(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(lock)


def lock(
    folder: Annotated[Path, typer.Argument(help="The train's folder, with a requirements.in.")],
    upgrade: Annotated[
        bool,
        typer.Option(
            "--upgrade", help="Take the newest versions that fit; without it those of the list stay."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write requirements.txt from requirements.in: every wheel that a train brings along, with its version and hash."""
    from train_images.tool.folders import read_folder  # noqa: PLC0415 - each command loads what it needs
    from train_images.tool.locking import lock_train  # noqa: PLC0415
    from train_images.tool.own_wheels import REQUIREMENTS  # noqa: PLC0415

    train = read_folder(folder)
    wheels = lock_train(train, upgrade=upgrade)
    if as_json:
        echo_json({"list": folder / REQUIREMENTS, "wheels": wheels})
        return
    say(f"{folder / REQUIREMENTS} names {wheels} {'wheel' if wheels == 1 else 'wheels'}, by hash.")
    say(f"Read what changed, then: pht-train build {folder}")
