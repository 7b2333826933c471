"""`pht-board member`: the keys of members, secretary, witness and requesters."""

from pathlib import Path
from typing import Annotated

import typer

from policies.board.commands.options import (
    KeyOption,
    PassphraseEnvironment,
    PassphraseFile,
    PublicOption,
    opened,
)
from policies.console import JsonOption, echo_json, new_app, say

member_app = new_app("The keys of members, secretary, witness and requesters.")


def add_commands(app: typer.Typer) -> None:
    """Add the group to the program."""
    app.add_typer(member_app, name="member")


@member_app.command("new")
def member_new(
    key: Annotated[Path, typer.Argument(help="The new key file; its public part goes beside it as .pub.")],
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the file unencrypted: for a daemon's key.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make an Ed25519 key."""
    from policies.board.signing.keys import choose_passphrase, new_key, public_file, read_passphrase  # noqa: PLC0415

    given = read_passphrase(passphrase_file, passphrase)
    if given is None and not no_passphrase:
        given = choose_passphrase()
    public_hex = new_key(key, None if no_passphrase else given)
    if as_json:
        echo_json({"key": str(key), "public_file": str(public_file(key)), "public_key": public_hex})
        return
    say(
        f"Key:        {key} (keep it; {'not encrypted' if no_passphrase else 'encrypted with the passphrase'})"
    )
    say(f"Public key: {public_hex}")
    say(f"            also in {public_file(key)}, to hand out")


@member_app.command("show")
def member_show(
    key: KeyOption,
    public: PublicOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Show the public part of a key."""
    public_hex = opened(key, passphrase_file, passphrase, public).public_hex
    if as_json:
        echo_json({"public_key": public_hex})
    else:
        say(public_hex)
