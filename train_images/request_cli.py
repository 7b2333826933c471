"""`pht-train request`: ask the board that a train may run, and follow what becomes of it.

Parses, calls one use case, renders. What the orchestrator says of a request is its word; what counts is a signed policy.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.board.commands.options import PassphraseEnvironment, PassphraseFile, PublicOption
from policies.console import JsonOption, echo_json, new_app, say, say_line
from train_images.connection_options import CaOption, ProfileOption, TokenOption, ToOption, open_registry

if TYPE_CHECKING:
    from policies.signing import Signer
    from policies.wire.registry_requests import RequestStatus

request_app = new_app("Ask the board that a train may run.")

_KEY_HELP = "Your key: the one that the request names."
RequestArgument = Annotated[str, typer.Argument(help="The request's id, as `request send` prints it.")]


@request_app.command("new")
def request_new(
    out: Annotated[Path, typer.Argument(help="The file to write, such as request.yaml.")],
    bundle: Annotated[Path, typer.Option("--bundle", help="The packed bundle's folder.")],
    key: Annotated[str, typer.Option("--key", "-k", help="Your key's public part: a .pub file, or hex.")],
    collections: Annotated[str, typer.Option(help="Which collections: names with commas.")],
    stations: Annotated[
        str, typer.Option(help="Which hospitals: names with commas; without it whichever have them.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Write a request for a packed train; what only you know stands in it as REPLACE, for you to fill in."""
    from policies.board.signing.keys import read_public  # noqa: PLC0415 - each command loads what it needs
    from policies.files import write_atomically  # noqa: PLC0415
    from train_images.tool.folders import read_bundle  # noqa: PLC0415
    from train_images.tool.requesting import draft  # noqa: PLC0415

    train = read_bundle(bundle)
    text = draft(train, read_public(key), _names(collections), _names(stations))
    write_atomically(out, text)
    if as_json:
        echo_json({"request": out, "train": train.manifest.name, "version": train.manifest.version})
        return
    say(f"Wrote {out} for {train.manifest.name} {train.manifest.version}.")
    say(f"Next: fill in what says REPLACE, then pht-train request send {out} --key YOUR-KEY.pem")


@request_app.command("sign")
def request_sign(
    request: Annotated[Path, typer.Argument(help="The request's file, filled in.")],
    out: Annotated[Path, typer.Argument(help="The signed file to write, such as request.dsse.json.")],
    key: Annotated[str, typer.Option("--key", "-k", help=_KEY_HELP)],
    sender: Annotated[str, typer.Option("--as", help="Your name at the orchestrator, as your token has it.")],
    public: PublicOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a request, without an orchestrator: for a key that stays away from the network."""
    from policies.files import write_atomically  # noqa: PLC0415
    from policies.train_request import sign_request  # noqa: PLC0415
    from train_images.tool.requesting import checked  # noqa: PLC0415

    text = checked(request)
    signer = _signer(key, public, passphrase_file, passphrase)
    write_atomically(out, sign_request(text, sender, signer))
    if as_json:
        echo_json({"signed": out, "sender": sender})
        return
    say(f"Signed {out} for {sender}; nobody else can send it. Next: pht-train request send {out}")


@request_app.command("send")
def request_send(
    request: Annotated[Path, typer.Argument(help="The request's file, or one that `request sign` wrote.")],
    key: Annotated[str | None, typer.Option("--key", "-k", help=_KEY_HELP)] = None,
    public: PublicOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a request and send it; the train's bundle must have been submitted. Prints the id."""
    from policies.train_request import sign_request  # noqa: PLC0415
    from train_images.tool.requesting import checked, signed_already  # noqa: PLC0415

    envelope = signed_already(request) if key is None else None
    text = b"" if key is None else checked(request)
    signer = None if key is None else _signer(key, public, passphrase_file, passphrase)
    with open_registry(to, token_file, ca, profile) as registry:
        if signer is not None:
            envelope = sign_request(text, registry.who_am_i().name, signer)
        sent = registry.requests.submit(envelope or b"")
    if as_json:
        echo_json(sent)
    else:
        say(sent.id)


@request_app.command("list")
def request_list(
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List your requests, the newest first."""
    with open_registry(to, token_file, ca, profile) as registry:
        found = registry.requests.all()
    if as_json:
        echo_json(found)
        return
    for one in found:
        train = one.request.train
        say_line(f"{one.id}  {one.changed}  {one.state:10}  {train.name} {train.version}")
    if not found:
        say("You have made no request.")


@request_app.command("show")
def request_show(
    request: RequestArgument,
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a request, and how it came to where it stands."""
    from policies.board.documents.asked import lines_of, signature_of  # noqa: PLC0415

    with open_registry(to, token_file, ca, profile) as registry:
        found, history = registry.requests.get(request), registry.requests.history(request)
        signature = signature_of(registry, found)
    if as_json:
        echo_json({"request": found, "history": history, "signature": signature})
        return
    for line in lines_of(found, history, signature):
        say_line(line)


@request_app.command("withdraw")
def request_withdraw(
    request: RequestArgument,
    text: Annotated[
        str, typer.Option("--text", help="Why, for the board to read; at most 500 characters.")
    ] = "",
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a request back."""
    with open_registry(to, token_file, ca, profile) as registry:
        found = registry.requests.withdraw(request, text)
    _show_state(found, as_json=as_json)


def _show_state(found: "RequestStatus", *, as_json: bool) -> None:
    if as_json:
        echo_json(found)
    else:
        say(f"The request is {found.state}.")


def _signer(key: str, public: str | None, passphrase_file: Path | None, passphrase: str | None) -> "Signer":
    from policies.board.signing.keys import open_key, read_passphrase, read_public  # noqa: PLC0415

    known = None if public is None else read_public(public)
    return open_key(key, read_passphrase(passphrase_file, passphrase), known)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
