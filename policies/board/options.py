"""What several `pht-board` commands share: options, the question before a signature, opening a key."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.errors import UsageError

if TYPE_CHECKING:
    from policies.signing import Signer

KeyOption = Annotated[Path, typer.Option("--key", "-k", help="Your key file.")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File that holds the key's passphrase.")
]
PassphraseEnvironment = Annotated[
    str | None, typer.Option("--passphrase", envvar="PHT_PASSPHRASE", hidden=True, show_envvar=False)
]
"""Meant for the environment: on a command line others on the machine could read it."""
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask: you have read what is signed.")]
RepositoryOption = Annotated[Path, typer.Option("--repository", "-r", help="The repository's folder.")]
ToOption = Annotated[
    str | None, typer.Option("--to", help="Bring it to this mirror: an https address, or a folder.")
]
TokenOption = Annotated[
    Path | None, typer.Option("--token-file", help="File that holds the mirror's token for writers.")
]
CaOption = Annotated[
    Path | None, typer.Option("--ca", help="Authority behind the mirror's certificate (PEM).")
]
TrainOption = Annotated[
    Path | None, typer.Option("--train", help="The train: train.yaml, or a packed bundle's folder.")
]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="Initial weights (safetensors), to count what a release can hold."),
]


def confirm(question: str, *, yes: bool) -> None:
    """Ask for a typed yes.

    Raises:
        UsageError: nobody is there to ask.
        Abort: the answer is another one.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask for a yes", hint="Give --yes once you have read what is signed."
        )
    if input(f"{question} Type yes: ").strip().lower() != "yes":
        raise typer.Abort


def opened(key: Path, passphrase_file: Path | None, passphrase: str | None) -> "Signer":
    """Open the key that a command line names."""
    from policies.board.keys import open_key, read_passphrase  # noqa: PLC0415 - each command loads what it needs

    return open_key(key, read_passphrase(passphrase_file, passphrase))
