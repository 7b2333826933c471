"""The options of `pht-train` that say which orchestrator is spoken to, and as whom."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from policies.wire.registry_client import RegistryClient

ToOption = Annotated[str | None, typer.Option("--to", help="The orchestrator: https://host:port.")]
TokenOption = Annotated[Path | None, typer.Option("--token-file", help="File that holds your token.")]
CaOption = Annotated[
    Path | None, typer.Option("--ca", help="Authority behind the orchestrator's certificate (PEM).")
]
ProfileOption = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        envvar="PHT_TRAIN_PROFILE",
        show_envvar=False,
        help="TOML file with to, token_file and ca; without it ~/.config/pht-train.toml.",
    ),
]


def open_registry(
    to: str | None, token_file: Path | None, ca: Path | None, profile: Path | None
) -> "RegistryClient":
    """Open the connection that the options choose."""
    from train_images.tool.connection import choose_connection  # noqa: PLC0415 - a command that speaks to nobody loads none of it

    return choose_connection(to, token_file, ca, profile).open()
