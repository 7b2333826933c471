"""The commands of `pht-board` for those who read before they decide: review."""

from pathlib import Path
from typing import Annotated

import typer

from policies.board.documents_cli import reviewed, show_review
from policies.board.options import TrainOption, WeightsOption
from policies.console import JsonOption, echo_json

BaseOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--base",
        help="Layers that are known: a bundle, an image config, or the output of `docker image inspect`; may be given again.",
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (review,):
        app.command()(command)


def review(
    document: Annotated[
        Path, typer.Argument(help="A policy file, a train.yaml, or a packed bundle's folder.")
    ],
    train: TrainOption = None,
    weights: WeightsOption = None,
    repository: Annotated[
        Path | None, typer.Option("--repository", "-r", help="Compare with the version in force there.")
    ] = None,
    previous: Annotated[
        Path | None, typer.Option("--previous", help="The bundle that was approved before, to compare with.")
    ] = None,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say in plain words what a train asks, what is in its image, what a policy permits, how much could leave."""
    from policies.board.contents.reviewing import with_image  # noqa: PLC0415 - each command loads what it needs

    found = reviewed(document, train, weights, repository)
    found = with_image(found, (document, train), previous=previous, base=tuple(base or ()))
    if as_json:
        echo_json(found)
    else:
        show_review(found)
