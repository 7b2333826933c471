"""The command of `pht-board` that writes the public register."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from policies.board.commands.options import RepositoryOption
from policies.console import JsonOption, echo_json, say
from policies.errors import RefusedError, UsageError


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.command()(site)


def site(
    repository: RepositoryOption,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder to write the site to.", file_okay=False)
    ],
    root: Annotated[
        Path | None,
        typer.Option(help="The board's first root; by default the one in the repository's folder."),
    ] = None,
    contact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATION=TEXT", help="Where patients of a hospital turn to; once for each hospital."
        ),
    ] = None,
    documents: Annotated[
        str, typer.Option(help="The language that policies are written in: nl or en.")
    ] = "en",
    as_json: JsonOption = False,
) -> None:
    """Write the public register, in Dutch and English: what runs where, why, what leaves, and how to object."""
    import tempfile  # noqa: PLC0415 - each command loads what it needs

    from policies.board.documents.documents_in import read_file  # noqa: PLC0415
    from policies.public_register import SiteOptions, write_site  # noqa: PLC0415
    from policies.public_register.words import Language  # noqa: PLC0415
    from policies.refusal_texts import text_of  # noqa: PLC0415
    from policies.refusals import Refused  # noqa: PLC0415
    from policies.trust.client import PolicyClient  # noqa: PLC0415

    if documents not in set(Language):
        raise UsageError(f"--documents {documents}: is nl or en")
    options = SiteOptions(dict(_contact(text) for text in contact or []), Language(documents))
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="pht-site-") as scratch:
        PolicyClient.pin(Path(scratch), read_file(root or repository / "metadata" / "1.root.json"))
        result = PolicyClient(Path(scratch), repository).refresh(now)
    if isinstance(result, Refused):
        text = text_of(result.code)
        raise RefusedError(result.code, text.means, hint=text.do)
    files = write_site(result.value, out, options, now)
    if as_json:
        echo_json({"out": str(out), "files": list(files), "studies": len(result.value.policies)})
        return
    say(
        f"Wrote {len(files)} files to {out}, from what is in force now: {len(result.value.policies)} policies."
    )
    say("Put the folder on any web server; it needs no program and asks nothing of others.")


def _contact(text: str) -> tuple[str, str]:
    station, equals, where = text.partition("=")
    if not equals or not station or not where.strip():
        raise UsageError(f"--contact {text}: write it as station=text")
    return station, where.strip()
