"""The commands of `pht-board` about researchers' requests, as an orchestrator keeps them.

Taking a request up and declining it are said here; approving it is not: that is a policy that the members sign.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.board.commands.options import mirror_token
from policies.console import JsonOption, echo_json, new_app, say, say_line
from policies.train_request import DeclineReason, RequestState

if TYPE_CHECKING:
    from policies.wire.registry_client import RegistryClient
    from policies.wire.registry_requests import RequestStatus

requests_app = new_app("What researchers ask the board for.")

OrchestratorOption = Annotated[str, typer.Option("--to", help="The orchestrator: https://host:port.")]
TokenOption = Annotated[Path, typer.Option("--token-file", help="File that holds the board's token.")]
CaOption = Annotated[Path, typer.Option("--ca", help="Authority behind its certificate (PEM).")]
RequestArgument = Annotated[str, typer.Argument(help="The request's id, as `requests list` shows it.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.add_typer(requests_app, name="requests")


@requests_app.command("list")
def requests_list(
    to: OrchestratorOption,
    token_file: TokenOption,
    ca: CaOption,
    state: Annotated[RequestState | None, typer.Option(help="Only those that stand there.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List requests, the newest first."""
    with _open(to, token_file, ca) as registry:
        found = registry.requests.all(state)
    if as_json:
        echo_json(found)
        return
    for one in found:
        train, who = one.request.train, one.request.requester.organisation
        mark = "  CONTESTED" if one.contested else "" if one.signed else "  NOT SIGNED"
        say_line(f"{one.id}  {one.changed}  {one.state:10}  {train.name} {train.version}  {who}{mark}")
    if not found:
        say("There is no such request.")


@requests_app.command("show")
def requests_show(
    request: RequestArgument,
    to: OrchestratorOption,
    token_file: TokenOption,
    ca: CaOption,
    as_json: JsonOption = False,
) -> None:
    """Show a request, and how it came to where it stands."""
    from policies.board.documents.asked import lines_of, signature_of  # noqa: PLC0415 - each command loads what it needs

    with _open(to, token_file, ca) as registry:
        found, history = registry.requests.get(request), registry.requests.history(request)
        signature = signature_of(registry, found)
    if as_json:
        echo_json({"request": found, "history": history, "signature": signature})
        return
    for line in lines_of(found, history, signature):
        say_line(line)


@requests_app.command("review")
def requests_review(
    request: RequestArgument,
    to: OrchestratorOption,
    token_file: TokenOption,
    ca: CaOption,
    text: Annotated[
        str, typer.Option("--text", help="For the researcher to read; at most 500 characters.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Take a request into review."""
    with _open(to, token_file, ca) as registry:
        _show(registry.requests.take_up(request, text), as_json=as_json)


@requests_app.command("decline")
def requests_decline(
    request: RequestArgument,
    to: OrchestratorOption,
    token_file: TokenOption,
    ca: CaOption,
    reason: Annotated[DeclineReason, typer.Option(help="Why.")],
    text: Annotated[str, typer.Option("--text", help="For the researcher to read; at most 500 characters.")],
    as_json: JsonOption = False,
) -> None:
    """Decline a request, with a reason."""
    from policies.documents import canonical_json, load_json  # noqa: PLC0415
    from policies.train_request import Declined  # noqa: PLC0415

    why = load_json(Declined, canonical_json({"reason": reason.value, "text": text}), what="--text")
    with _open(to, token_file, ca) as registry:
        _show(registry.requests.decline(request, why), as_json=as_json)


def _show(found: "RequestStatus", *, as_json: bool) -> None:
    if as_json:
        echo_json(found)
    else:
        say(f"The request is {found.state}.")


def _open(to: str, token_file: Path, ca: Path) -> "RegistryClient":
    from policies.wire.registry_client import RegistryClient  # noqa: PLC0415

    return RegistryClient(to, ca, token=mirror_token(token_file))
