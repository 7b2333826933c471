"""`pht-orchestrator database | backup | restore | restored`: the orchestrator's state, and what becomes of it."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.opening import HomeArgument, home_at
from policies import console
from policies.console import JsonOption
from policies.documents import format_moment
from policies.errors import NotFoundError, StorageError

if TYPE_CHECKING:
    from orchestrator.backup import RestoredNote
    from orchestrator.settings import Home

database_app = console.new_app("The orchestrator's own state: SQLite in its home, or PostgreSQL.")


class BlobsChoice(StrEnum):
    """`orchestrator.backup.BlobsIn`, which takes the database's libraries to import."""

    INCLUDED = "included"
    LISTED = "listed"


class KeysChoice(StrEnum):
    """`orchestrator.backup.KeysIn`, likewise."""

    INCLUDED = "included"
    ENCRYPTED = "encrypted"
    LEFT_OUT = "left-out"


PassphraseOption = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File with the passphrase of the encrypted keys.")
]


@database_app.command("show")
def database_show(home: HomeArgument, as_json: JsonOption = False) -> None:
    """Where it is, and what each table holds: rows and a digest that does not depend on where."""
    from orchestrator.settings import database_location, load_settings  # noqa: PLC0415 - starts faster without
    from orchestrator.storage import open_database  # noqa: PLC0415
    from orchestrator.storage.copying import table_digests  # noqa: PLC0415

    place = home_at(home)
    location = database_location(place, load_settings(place))
    with closing(open_database(location)) as database:
        tables, revision = table_digests(database), database.revision()
    if as_json:
        console.echo_json({"database": location.name, "version": revision, "tables": tables})
        return
    console.say(f"{location.name}, version {revision} of its tables")
    console.say_table(
        "Tables", ("table", "rows", "digest"), [(t.table, t.rows, t.digest[:16]) for t in tables]
    )


@database_app.command("move")
def database_move(
    home: HomeArgument,
    to: Annotated[str, typer.Option(help="`postgresql://USER@HOST:PORT/NAME`, or `sqlite` for the home.")],
    password_file: Annotated[str, typer.Option(help="File that holds the password.")] = "",
    tls: Annotated[str, typer.Option(help="verify-full, verify-ca, or off on this machine.")] = "verify-full",
    ca_file: Annotated[str, typer.Option(help="The server's authority; the system's if not given.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Copy everything into another, empty database, verify it, and use that from the next `serve`; the old is kept."""
    from orchestrator.moving import move_database  # noqa: PLC0415
    from orchestrator.settings import parse_database  # noqa: PLC0415

    settings = parse_database(
        {
            "url": "" if to == "sqlite" else to,
            "password_file": _absolute(password_file),
            "tls": tls,
            "ca_file": _absolute(ca_file),
        }
    )
    moved = move_database(home_at(home), settings)
    if as_json:
        console.echo_json(moved)
        return
    for table in moved.tables:
        console.say(f"{table.rows:8} rows of {table.table}, verified")
    console.say(f"moved from {moved.source} to {moved.target}")
    console.say(f"  kept         {moved.kept or moved.source + ', as it was'}")


def backup(
    home: HomeArgument,
    out: Annotated[Path, typer.Argument(help="A new folder, best on another disk.", metavar="OUT")],
    blobs: Annotated[
        BlobsChoice, typer.Option(help="Weights, layers and results: included, or listed by digest only.")
    ] = BlobsChoice.INCLUDED,
    keys: Annotated[
        KeysChoice, typer.Option(help="Private keys: included, encrypted (--passphrase-file), or left out.")
    ] = KeysChoice.INCLUDED,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Back up a home, also while it serves."""
    from orchestrator.backup import BackupOptions, BlobsIn, KeysIn, take_backup  # noqa: PLC0415

    options = BackupOptions(BlobsIn(blobs.value), KeysIn(keys.value), _passphrase(passphrase_file))
    with _progress(shown=not as_json) as progress:
        made = take_backup(home_at(home), out.absolute(), options, progress)
    size = sum(file.size for file in made.files)
    if made.blobs_in is BlobsIn.INCLUDED:
        size += sum(blob.size for blob in made.blobs)
    if as_json:
        console.echo_json(
            {
                "backup": out.absolute(), "made": made.made, "orders": made.orders, "files": len(made.files),
                "blobs": len(made.blobs), "blobs_in": made.blobs_in, "keys_in": made.keys_in, "bytes": size,
            }
        )  # fmt: skip
        return
    console.say(
        f"backed up {made.orders} runs, {len(made.files)} files, {len(made.blobs)} blobs: {size} bytes"
    )
    console.say(f"  in           {out.absolute()}")
    console.say(f"  blobs        {made.blobs_in}")
    console.say(f"  keys         {made.keys_in}")


def restore(
    backup: Annotated[Path, typer.Argument(help="What `backup` made.", metavar="BACKUP")],
    home: HomeArgument,
    keep_tokens: Annotated[
        bool, typer.Option("--keep-tokens", help="Also those that were revoked after the backup work again.")
    ] = False,
    blobs: Annotated[
        Path | None, typer.Option(help="Folder of bytes by digest, for a backup that lists them only.")
    ] = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a home from a backup; every byte is verified. All tokens are withdrawn unless told otherwise."""
    from orchestrator.backup import RestoreOptions, restore_backup  # noqa: PLC0415

    options = RestoreOptions(keep_tokens, blobs, _passphrase(passphrase_file))
    with _progress(shown=not as_json) as progress:
        note = restore_backup(backup.absolute(), home.absolute(), options, progress)
    if as_json:
        console.echo_json(note)
        return
    console.say(f"restored {home.absolute()}")
    _show(note, home)


def restored(
    home: HomeArgument,
    done: Annotated[
        bool, typer.Option("--done", help="Everything is dealt with: forget where this home came from.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What is left to do after a restoration."""
    from orchestrator.backup import read_note  # noqa: PLC0415
    from orchestrator.backup.documents import NOTE  # noqa: PLC0415

    note = read_note(home)
    if note is None:
        raise NotFoundError("this home was not restored, or all of that is dealt with")
    if as_json:
        console.echo_json(note)
    else:
        _show(note, home)
    if done:
        (home / NOTE).unlink()
        console.say("forgotten")


def restored_line(home: "Home") -> str:
    """What `status` says of a restoration; empty where there was none."""
    from orchestrator.backup import read_note  # noqa: PLC0415

    note = read_note(home.path)
    if note is None:
        return ""
    left = "" if _republished(note, home.path) else "; the board has to publish again"
    return (
        f"from the backup of {format_moment(note.backup_made)} at {format_moment(note.restored)}{left} "
        "(see `pht-orchestrator restored HOME`)"
    )


def _show(note: "RestoredNote", home: Path) -> None:
    made = format_moment(note.backup_made)
    console.say(f"  backup of    {made}, with {note.orders} runs; restored at {format_moment(note.restored)}")
    console.say(f"  orders       those given after {made} are unknown here: give the same signed order again")
    console.say("               (stations answer what they released already with the same bytes)")
    if note.revoked:
        console.say(
            "  tokens       all withdrawn, since some may have been revoked meanwhile; make new ones for"
        )
        console.say(f"               {', '.join(note.revoked)}")
    if note.kept_tokens:
        console.say(f"  ! tokens     kept: whoever was revoked after {made} is in again. Revoke anew, of")
        console.say(f"               {', '.join(note.kept_tokens)}")
    if _republished(note, home):
        console.say("  mirror       published again since")
    else:
        console.say(
            f"  ! mirror     as of {made}: stations refuse it if they have seen a newer one; ask the board's"
        )
        console.say("               secretary and witness to publish again")
    if note.missing_blobs:
        console.say(
            f"  ! blobs      {note.missing_blobs} are missing: restore with --blobs FOLDER, or have them sent again"
        )
    if note.missing_keys:
        console.say(f"  ! keys       put back {', '.join(note.missing_keys)} before `serve`")


def _republished(note: "RestoredNote", home: Path) -> bool:
    from orchestrator.backup.taking import timestamp_version  # noqa: PLC0415

    return timestamp_version(home_at(home).mirror) > note.mirror_timestamp


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[str, int, int], None]]:
    if not shown:
        yield lambda *_: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield show


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""  # noqa: PTH100 - an empty one stays empty


def _passphrase(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{path.name}: cannot be read") from error
