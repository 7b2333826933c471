"""The commands of `pht-board` with which members sign: policies, the root, the register of stations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.board import root_cli
from policies.board.documents_cli import reviewed, show_review
from policies.board.options import (
    KeyOption,
    PassphraseEnvironment,
    PassphraseFile,
    TrainOption,
    WeightsOption,
    YesOption,
    confirm,
    opened,
)
from policies.console import JsonOption, echo_json, say
from policies.errors import UsageError

if TYPE_CHECKING:
    from policies.board.signing_desk import SignedFile
    from policies.charter import StationRegister


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (sign, register):
        app.command()(command)


def sign(
    key: KeyOption,
    document: Annotated[Path | None, typer.Argument(help="The policy file; omit it with --root.")] = None,
    root: Annotated[
        Path | None, typer.Option("--root", help="Sign the drafted root of the repository in this folder.")
    ] = None,
    train: TrainOption = None,
    weights: WeightsOption = None,
    yes: YesOption = False,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a policy file (or, with --root, the board's charter), after showing what is signed."""
    if (document is None) == (root is None):
        raise UsageError("name a policy file, or the repository with --root, and not both")
    if root is not None:
        root_cli.sign_root(root, lambda: opened(key, passphrase_file, passphrase), yes=yes, as_json=as_json)
        return
    from policies.board.documents_in import read_file  # noqa: PLC0415
    from policies.board.signing_desk import read_policy, sign_document  # noqa: PLC0415
    from policies.charter import POLICY_PAYLOAD_TYPE  # noqa: PLC0415

    path = document or Path()
    data = read_file(path)
    policy = read_policy(data, path.name)
    if not as_json:
        show_review(reviewed(path, train, weights, None))
        say()
    confirm(f"Sign {policy.id}, version {policy.version}?", yes=yes)
    signer = opened(key, passphrase_file, passphrase)
    _show_signed(sign_document(path, data, POLICY_PAYLOAD_TYPE, signer), as_json=as_json)


def register(
    document: Annotated[Path, typer.Argument(help="The register of stations (YAML).")],
    key: KeyOption,
    yes: YesOption = False,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the register of stations: who takes part, with which keys, under which agreement."""
    from policies.board.documents_in import read_file  # noqa: PLC0415
    from policies.board.signing_desk import read_register, sign_document  # noqa: PLC0415
    from policies.charter import REGISTER_PAYLOAD_TYPE  # noqa: PLC0415

    data = read_file(document)
    found = read_register(data, document.name)
    if not as_json:
        _show_register(found)
    confirm(f"Sign version {found.version} of the register?", yes=yes)
    signer = opened(key, passphrase_file, passphrase)
    _show_signed(sign_document(document, data, REGISTER_PAYLOAD_TYPE, signer), as_json=as_json)


def _show_register(found: "StationRegister") -> None:
    say(f"Register of stations of {found.board}, version {found.version}")
    for station in found.stations:
        say(f"  {station.name}: {station.organisation} ({station.country})")
        say(f"    agreement {station.agreement.reference}, until {station.agreement.expires}")
        say(f"    identity {station.identity_key}")
        say(f"    node     {station.node_key[:60]}...")


def _show_signed(done: "SignedFile", *, as_json: bool) -> None:
    if as_json:
        echo_json(done)
        return
    say(f"Signed {done.digest}")
    say(
        f"{done.envelope} holds {done.signatures} signature{'' if done.signatures == 1 else 's'}: pass it on with the file."
    )
