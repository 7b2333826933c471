"""The pseudonym key: what versions there are, and rotation. The key itself is never shown."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.console import JsonOption, echo_json, new_app, say, say_table
from policies.documents import format_moment
from policies.errors import UsageError
from station.cli.program import app
from station.cli.reaching import HomeOption

if TYPE_CHECKING:
    from station.pseudonymisation.keyring import KeyDescription

key_app = new_app("The hospital's pseudonym key; its secret is never shown.")
app.add_typer(key_app, name="key")


@key_app.command("show")
def key_show(home: HomeOption, as_json: JsonOption = False) -> None:
    """The versions of the key: the newest is in use, the others make earlier pseudonyms again."""
    from station.intake.key_rotation import key_versions  # noqa: PLC0415 - starts faster without

    _show(key_versions(Path(home)), as_json=as_json)


@key_app.command("rotate")
def key_rotate(
    home: HomeOption,
    new_pseudonyms: Annotated[
        bool,
        typer.Option(
            "--new-pseudonyms", help="Say that you know: every patient gets a new pseudonym from now on."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a new version of the key into use, with the service stopped; audited.

    Images taken in before keep their pseudonyms, and do not link to what comes after: ingest the collections again.
    """
    if not new_pseudonyms:
        raise UsageError(
            "a rotated key gives every patient a new pseudonym",
            hint="Give --new-pseudonyms to say that this is meant; ingest the collections again afterwards.",
        )
    from station.intake.key_rotation import rotate_key  # noqa: PLC0415 - starts faster without

    versions = rotate_key(Path(home))
    _show(versions, as_json=as_json)
    if not as_json:
        say("Back up the key file now, then start the service and ingest the collections again.")


def _show(versions: "list[KeyDescription]", *, as_json: bool) -> None:
    rows = [
        {"key_id": entry.key_id, "version": entry.version, "created_at": format_moment(entry.created_at)}
        for entry in versions
    ]
    if as_json:
        echo_json(rows)
        return
    say_table(
        "Pseudonym key, newest first", ("version", "key", "made"),
        [[row["version"], row["key_id"], row["created_at"]] for row in rows],
    )  # fmt: skip
