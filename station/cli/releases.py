"""What left this station: every release, one release whole, and the very bytes of it."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import JsonOption, echo_json, new_app, say, say_table
from policies.errors import NotFoundError, StorageError, UsageError
from station.cli.program import app
from station.cli.reaching import GroupHomeOption, HomeOption, compute_api, named
from station.cli.trains import OrderArgument, full_order

releases_app = new_app("What left this station: list, show, export.")
app.add_typer(releases_app, name="releases", invoke_without_command=True, no_args_is_help=False)

RoundArgument = Annotated[int, typer.Argument(help="Of the run.", min=1)]
StageArgument = Annotated[str, typer.Argument(help="train, evaluate or analyse.")]


@releases_app.callback()
def releases(
    context: typer.Context,
    home: GroupHomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What left this station: list, show, export; without a command, the list."""
    if context.invoked_subcommand is not None:
        return
    _list(named(home), as_json=as_json)


@releases_app.command("list")
def list_(home: HomeOption, as_json: JsonOption = False) -> None:
    """Every release: what kind, how large, of which run, and whether its bytes are still there."""
    _list(home, as_json=as_json)


@releases_app.command()
def show(
    order: OrderArgument,
    round_: RoundArgument,
    stage: StageArgument,
    home: HomeOption,
    as_json: JsonOption = False,
) -> None:
    """One release: digests, sizes, rules, bits, figures."""
    row = _one(home, order, round_, stage)
    if as_json:
        echo_json(row)
        return
    say_table("Release", ("what", "value"), [[key, _plain(value)] for key, value in row.items()])


@releases_app.command()
def export(
    order: OrderArgument,
    round_: RoundArgument,
    stage: StageArgument,
    out: Annotated[
        Path, typer.Argument(help="The folder to write to; files that are there are not overwritten.")
    ],
    home: HomeOption,
) -> None:
    """Write exactly the bytes that left: reply.json, and the arrays beside it where there are any."""
    row = _one(home, order, round_, stage)
    api = compute_api(home)
    names = {"reply": "reply.json"} | ({"arrays": "arrays.safetensors"} if row["digest"] else {})
    if any((out / name).exists() for name in names.values()):
        raise UsageError(f"{out.name} holds a release already", hint="Name a new folder.")
    with ExitStack() as undo:
        try:
            out.mkdir(parents=True, exist_ok=True)
            for part, name in names.items():
                path = out / name
                with path.open("xb") as file:
                    undo.callback(path.unlink, missing_ok=True)
                    api.download(f"/v1/releases/{row['order']}/{round_}/{stage}/{part}", file)
        except OSError as error:
            raise StorageError(f"{out.name} cannot be written ({error.strerror})") from error
        undo.pop_all()
    say(f"Wrote {', '.join(names.values())} to {out}.")


def _list(home: Path, *, as_json: bool) -> None:
    rows = compute_api(home).get("/v1/releases")
    if as_json:
        echo_json(rows)
        return
    say_table(
        "Releases",
        ("released", "policy", "round", "stage", "bytes", "could carry", "metrics", "payload"),
        [
            [
                row["released"], row["policy"], row["round"], row["stage"], row["size"], _at_most(row["capacity_bits"]),
                " ".join(f"{key}={value}" for key, value in row["metrics"].items()),
                "here" if row["purged"] is None else "purged",
            ]
            for row in rows
        ],
    )  # fmt: skip


def _one(home: Path, order: str, round_: int, stage: str) -> dict[str, Any]:
    api = compute_api(home)
    digest = full_order(api, order)
    for row in api.get("/v1/releases"):
        if (row["order"], row["round"], row["stage"]) == (digest, round_, stage):
            return dict(row)
    raise NotFoundError("there is no such release", hint="`pht-station releases list` lists them.")


def _at_most(bits: int | None) -> str:
    from policies.rules.capacity import bits_in_words  # noqa: PLC0415 - not for every command

    return "" if bits is None else f"at most {bits_in_words(bits)}"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return "" if value is None else str(value)
