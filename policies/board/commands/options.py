"""What several `pht-board` commands share: options, the question before a signature, opening a key."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.errors import UsageError

if TYPE_CHECKING:
    from policies.signing import Signer

KeyOption = Annotated[
    str,
    typer.Option(
        "--key", "-k", help="Your key file, or a signer's URI (hsm:, gcpkms:, ...), which takes --public too."
    ),
]
PublicOption = Annotated[
    str | None, typer.Option("--public", help="The public key behind a signer's URI: hex or a .pub file.")
]
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


def confirm(question: str, *, yes: bool, as_json: bool = False) -> None:
    """Ask for a typed yes.

    Raises:
        UsageError: nobody is there to ask, or nothing was shown that could be agreed to.
        Abort: the answer is another one.
    """
    if yes:
        return
    if as_json:
        raise UsageError(
            "--json shows what is signed only afterwards",
            hint="Sign without --json, or give --yes once you have read it.",
        )
    if not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask for a yes", hint="Give --yes once you have read what is signed."
        )
    if input(f"{question} Type yes: ").strip().lower() != "yes":
        raise typer.Abort


def opened(
    key: str, passphrase_file: Path | None, passphrase: str | None, public: str | None = None
) -> "Signer":
    """Open the key that a command line names."""
    from policies.board.signing.keys import open_key, read_passphrase, read_public  # noqa: PLC0415 - loaded when needed

    known = None if public is None else read_public(public)
    return open_key(key, read_passphrase(passphrase_file, passphrase), known)


def mirror_target(to: str | None) -> str | Path | None:
    """Return the mirror that a command line names: an address, a folder, or none."""
    return to if to is None or "://" in to else Path(to)


def mirror_token(file: Path | None) -> str | None:
    """Return the mirror's token, from its file."""
    from policies.board.documents.documents_in import read_file  # noqa: PLC0415

    return None if file is None else read_file(file).decode("utf-8", "replace").strip()
