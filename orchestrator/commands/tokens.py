"""`pht-orchestrator token`: who may speak to the API, and until when."""

from contextlib import closing
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.opening import HomeArgument, services
from policies import console
from policies.console import JsonOption
from policies.documents import format_moment
from policies.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.registry.access import Role

token_app = console.new_app("Tokens of researchers, the board, its witness, operators and auditors.")


class RoleChoice(StrEnum):
    """`orchestrator.registry.access.Role`, which takes the database's libraries to import."""

    RESEARCHER = "researcher"
    BOARD = "board"
    WITNESS = "witness"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    STATION = "station"


RoleOption = Annotated[RoleChoice, typer.Option(help="researcher, board, witness, operator or auditor.")]


@token_app.command("new")
def token_new(
    home: HomeArgument,
    role: RoleOption,
    name: Annotated[str, typer.Option(help="Who gets it.")],
    days: Annotated[float, typer.Option(min=0.001, max=3660, help="How long it opens anything.")] = 365,
    as_json: JsonOption = False,
) -> None:
    """Make a token; it is shown once."""
    if role is RoleChoice.STATION:
        raise UsageError("stations sign their requests", hint="They need no token: see `pht-station`.")
    if not 0 < len(name) <= 64:
        raise UsageError("a name has 1 to 64 characters")
    with closing(services(home)) as parts:
        token = parts.access.new_token(_role(role), name, days)
    if as_json:
        console.echo_json({"role": role, "name": name, "token": token, "days": days})
    else:
        console.say(token)


@token_app.command("list")
def token_list(home: HomeArgument, as_json: JsonOption = False) -> None:
    """All tokens that were made, without what they are: whose, until when, last used (to about 10 s)."""
    with closing(services(home)) as parts:
        views = parts.access.tokens()
    if as_json:
        console.echo_json(views)
        return
    now = datetime.now(UTC)
    console.say_table(
        "Tokens",
        ("id", "role", "name", "made", "ends", "last used", "state"),
        [
            (
                view.id,
                view.role,
                view.name,
                format_moment(view.created),
                _moment(view.expires, "never"),
                _moment(view.last_used, "never"),
                view.state(now),
            )
            for view in views
        ],
    )


@token_app.command("revoke")
def token_revoke(
    home: HomeArgument,
    role: RoleOption,
    name: Annotated[str, typer.Option(help="Whose tokens.")],
    token_id: Annotated[
        int | None, typer.Option("--id", help="This one alone, as `token list` numbers them.")
    ] = None,
) -> None:
    """Withdraw the tokens of a party; they open nothing from the next request on."""
    with closing(services(home)) as parts:
        count = parts.access.revoke_tokens(_role(role), name, token_id=token_id)
    console.say(f"withdrew {count}")


def _role(choice: RoleChoice) -> "Role":
    from orchestrator.registry.access import Role  # noqa: PLC0415 - starts faster without

    return Role(choice.value)


def _moment(moment: datetime | None, otherwise: str) -> str:
    return otherwise if moment is None else format_moment(moment)
