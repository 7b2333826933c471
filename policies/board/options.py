"""Command-line options that several `pht-board` commands share."""

from pathlib import Path
from typing import Annotated

import typer

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
