"""The commands of `pht-board` with which members sign: policies and the root, the register, the purposes; and dissent."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from policies.board.commands import root_cli
from policies.board.commands.documents_cli import reviewed, show_review
from policies.board.commands.options import (
    KeyOption,
    PassphraseEnvironment,
    PassphraseFile,
    PublicOption,
    TrainOption,
    WeightsOption,
    YesOption,
    confirm,
    opened,
)
from policies.charter import REGISTER_PAYLOAD_TYPE, StationRegister
from policies.console import JsonOption, echo_json, one_line, say, say_line
from policies.errors import RefusedError, UsageError
from policies.purposes import PURPOSES_PAYLOAD_TYPE, PurposeTable
from policies.refusals import RefusalCode

if TYPE_CHECKING:
    from policies.board.signing.signing_desk import SignedFile
    from policies.signing import Signer

PolicyArgument = Annotated[Path, typer.Argument(help="The policy file.")]
_Document = TypeVar("_Document", StationRegister, PurposeTable)


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (sign, dissent, register, purposes):
        app.command()(command)


def sign(
    key: KeyOption,
    document: Annotated[Path | None, typer.Argument(help="The policy file; omit it with --root.")] = None,
    root: Annotated[
        Path | None, typer.Option("--root", help="Sign the drafted root of the repository in this folder.")
    ] = None,
    conditions: Annotated[
        str | None,
        typer.Option(help="Under which conditions you approve: signed too, and published with it."),
    ] = None,
    train: TrainOption = None,
    weights: WeightsOption = None,
    yes: YesOption = False,
    public: PublicOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a policy file (or, with --root, the board's charter), after showing what is signed."""
    if (document is None) == (root is None):
        raise UsageError("name a policy file, or the repository with --root, and not both")
    if root is not None:
        root_cli.sign_root(
            root, lambda: opened(key, passphrase_file, passphrase, public), yes=yes, as_json=as_json
        )
        return
    from policies.board.documents.documents_in import read_file  # noqa: PLC0415 - each command loads what it needs
    from policies.board.signing.opinions_desk import approve  # noqa: PLC0415
    from policies.board.signing.signing_desk import read_policy  # noqa: PLC0415

    path = document or Path()
    data = read_file(path)
    policy = read_policy(data, path.name)
    found = reviewed(path, train, weights, None, data=data)
    if not as_json:
        show_review(found)
        if conditions is not None:
            say(f"\nYour conditions, published with it: {one_line(conditions)}")
        say()
    confirm(f"Sign {policy.id}, version {policy.version}?", yes=yes, as_json=as_json)
    signer = opened(key, passphrase_file, passphrase, public)
    if signer.public_hex == policy.requester.key:
        raise RefusedError(
            RefusalCode.POLICY_SIGNER_IS_REQUESTER, "this is the key that will order runs under the policy"
        )
    done, opinion = approve(path, data, signer, conditions, datetime.now(UTC))
    if as_json:
        echo_json(
            {
                "envelope": done.envelope,
                "digest": done.digest,
                "signatures": done.signatures,
                "opinion": opinion,
                "review": found,
            }
        )
        return
    _show_signed(done, as_json=False)
    if opinion is not None:
        say(f"{opinion} holds your conditions: pass it on too.")


def dissent(
    policy: PolicyArgument,
    key: KeyOption,
    reason: Annotated[str, typer.Option(help="Why you do not agree: signed, and published with the policy.")],
    yes: YesOption = False,
    public: PublicOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Sign that you do not agree with a policy, and why; others may still sign it."""
    from policies.board.documents.documents_in import read_file  # noqa: PLC0415
    from policies.board.signing.opinions_desk import dissent_from  # noqa: PLC0415
    from policies.board.signing.signing_desk import read_policy  # noqa: PLC0415

    data = read_file(policy)
    found = read_policy(data, policy.name)
    if not as_json:
        say_line(f"{found.id}, version {found.version}: {found.title}")
        say_line(f"Your dissent, published with it: {reason}")
    confirm("Sign this dissent?", yes=yes, as_json=as_json)
    signer = opened(key, passphrase_file, passphrase, public)
    opinion = dissent_from(policy, data, signer, reason, datetime.now(UTC))
    if as_json:
        echo_json({"opinion": opinion})
    else:
        say(f"{opinion} holds your dissent: pass it on with the policy.")


def register(
    document: Annotated[Path, typer.Argument(help="The register of stations (YAML).")],
    key: KeyOption,
    yes: YesOption = False,
    public: PublicOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the register of stations: who takes part, with which keys, under which agreement."""
    _sign_document(
        document,
        (StationRegister, REGISTER_PAYLOAD_TYPE, _show_register),
        lambda: opened(key, passphrase_file, passphrase, public),
        yes=yes,
        as_json=as_json,
    )


def purposes(
    document: Annotated[Path, typer.Argument(help="The table of purposes (YAML).")],
    key: KeyOption,
    yes: YesOption = False,
    public: PublicOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the table of purposes: which consents each purpose needs, for each class of requester."""
    _sign_document(
        document,
        (PurposeTable, PURPOSES_PAYLOAD_TYPE, _show_purposes),
        lambda: opened(key, passphrase_file, passphrase, public),
        yes=yes,
        as_json=as_json,
    )


def _sign_document(
    document: Path,
    kind: tuple[type[_Document], str, Callable[[_Document], None]],
    signer: "Callable[[], Signer]",
    *,
    yes: bool,
    as_json: bool,
) -> None:
    from policies.board.documents.documents_in import read_file  # noqa: PLC0415
    from policies.board.signing.signing_desk import sign_document  # noqa: PLC0415
    from policies.documents import load_yaml  # noqa: PLC0415

    model, payload_type, show = kind
    data = read_file(document)
    found = load_yaml(model, data, what=document.name)
    if not as_json:
        show(found)
    confirm(f"Sign version {found.version}?", yes=yes, as_json=as_json)
    _show_signed(sign_document(document, data, payload_type, signer()), as_json=as_json)


def _show_register(found: StationRegister) -> None:
    say_line(f"Register of stations of {found.board}, version {found.version}")
    for station in found.stations:
        say_line(f"  {station.name}: {station.organisation} ({station.country})")
        covered = station.agreement.policies
        for_what = "all policies" if covered is None else f"only {', '.join(covered) or 'no policy'}"
        say_line(
            f"    agreement {station.agreement.reference}, until {station.agreement.expires}, for {for_what}"
        )
        say_line(f"    identity {station.identity_key}")
        say_line(f"    node {station.node_key}")


def _show_purposes(found: PurposeTable) -> None:
    say_line(
        f"Table of purposes of {found.board}, version {found.version}: each patient has given every consent named"
    )
    for rule in found.rules:
        say_line(f"  {rule.purpose}, {rule.requester_class} requester: {' and '.join(rule.consents)}")
    say("  Everything else: nobody.")


def _show_signed(done: "SignedFile", *, as_json: bool) -> None:
    if as_json:
        echo_json(done)
        return
    say(f"Signed {done.digest}")
    say(
        f"{done.envelope} holds {done.signatures} signature{'' if done.signatures == 1 else 's'}: pass it on with the file."
    )
