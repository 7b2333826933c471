"""Moves the orchestrator's own state from one database to another: all of it, verified, the old one kept.

1. No orchestrator runs on the home, nor on the target.
2. Everything is copied in one transaction, and read again from the target: as many rows, and the same digests.
3. The settings file names the target from then on. A crash before leaves the old in use, one after the new.
4. A SQLite file that was left is kept under another name.
"""

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.home_lock import hold_home
from orchestrator.settings import Home, database_location, load_settings, render_section
from orchestrator.storage import open_database
from orchestrator.storage.copying import TableDigest, copy_database, snapshot_file, table_digests
from orchestrator.storage.location import DatabaseSettings, location_of
from orchestrator.storage.tenure import hold_database
from policies.errors import StateError, StorageError, UsageError
from policies.files import sync_folder, write_atomically

_SECTION = "[database]"


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved.

    Attributes:
        source, target: how messages call them.
        tables: what each table holds, in both.
        kept: the old SQLite file under its new name; None for a server, whose database stays as it is.
    """

    source: str
    target: str
    tables: tuple[TableDigest, ...]
    kept: Path | None


def move_database(home: Home, to: DatabaseSettings) -> Moved:
    """Move a home's state.

    Raises:
        UsageError: an orchestrator is at work, or something is in the target already.
        StateError: what arrived is not what was sent; the old one stays in use.
        SettingsError, StorageError, UnavailableError: as for opening either.
    """
    settings = load_settings(home)
    source, target = database_location(home, settings), location_of(to, home.database)
    if source == target:
        raise UsageError(f"{target.name}: is the database in use")
    if target.is_file and target.path.exists():
        raise UsageError(f"{target.name}: is there already", hint="Move it away first.")
    with hold_home(home), hold_database(source), hold_database(target):
        with closing(open_database(source)) as database:
            sent = copy_database(database, target)
        with closing(open_database(target)) as copy:
            if table_digests(copy) != sent:
                raise StateError(
                    f"{target.name}: does not hold what was sent", hint="The old one stays in use."
                )
        write_database_settings(home, to)
        kept = _kept(source.path) if source.is_file else None
    return Moved(source.name, target.name, sent, kept)


def write_database_settings(home: Home, to: DatabaseSettings) -> None:
    """Have the settings file name another database; the rest of it stays as its operator wrote it."""
    lines, found, inside = [], home.settings_file.read_text(encoding="utf-8").splitlines(), False
    for line in found:
        if line.strip().startswith("["):
            inside = line.strip() == _SECTION
        if not inside:
            lines.append(line)
    text = "\n".join(lines).rstrip() + "\n\n" + render_section("database", to) + "\n"
    write_atomically(home.settings_file, text.encode())
    found_now = load_settings(home, {}).database
    if found_now != to.model_copy(update={"password": None}):
        raise StateError("orchestrator.toml: does not say what was written", hint="Set database.url there.")


def _kept(path: Path) -> Path:
    kept = path.with_name(f"{path.name}.moved-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    try:
        # A file of its own, without the log that the last writer may have left beside it.
        snapshot_file(path, kept)
        kept.chmod(0o600)
        sync_folder(path.parent)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path.name}: cannot be kept ({error.strerror})") from error
    return kept
