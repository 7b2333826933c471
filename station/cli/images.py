"""`pht-station images`: which images of trains are here, who needs them, and throwing away what nobody does."""

from typing import Annotated

import typer

from policies.console import JsonOption, echo_json, say, say_table
from station.cli.program import app
from station.cli.reaching import HomeOption, compute_api, operator_name

images_app = typer.Typer(
    no_args_is_help=True, help="Images of trains: what is stored, who needs it, what goes."
)
app.add_typer(images_app, name="images")

_MIB = 1 << 20


@images_app.command("list")
def images_list(home: HomeOption, as_json: JsonOption = False) -> None:
    """Which images are here, how large, when they were last used, and which policies and orders need them."""
    found = compute_api(home).get("/v1/images")
    if as_json:
        echo_json(found)
        return
    say_table(
        f"Images: {found['used_bytes'] // _MIB} of {found['quota_bytes'] // _MIB} MiB",
        ("image", "layers", "MiB", "of its own", "from", "last used", "needed by"),
        [
            (
                image["config_digest"][7:19], image["layers"], image["bytes"] // _MIB, image["own_bytes"] // _MIB,
                image["source"], image["used"], _needed(image["needed_by"]),
            )
            for image in found["images"]
        ],
    )  # fmt: skip


@images_app.command("gc")
def images_gc(
    home: HomeOption,
    unneeded: Annotated[
        bool, typer.Option("--unneeded", help="Also what was used lately, where nothing needs it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Throw away images that no policy in force and no open order needs, here and in the container engine."""
    gone = compute_api(home).post("/v1/images/gc", {"actor": operator_name(), "unneeded": unneeded})
    if as_json:
        echo_json(gone)
        return
    say(f"{len(gone['images'])} images removed, {gone['bytes'] // _MIB} MiB freed")


def _needed(by: list[str] | None) -> str:
    if by is None:
        return "not known now: the policies cannot be verified"
    return ", ".join(by) or "nothing"
