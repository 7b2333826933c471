"""Staging by the operator: files into intake's spool, before intake is told of them."""

from pathlib import Path

from policies.errors import StateError
from station.intake import spool
from station.intake.paths import IntakePaths


def stage_folder(home: Path, source: Path) -> str:
    """Copy a folder's files durably into the spool and return the batch's name.

    Raises:
        StateError: the station has no intake yet, or this user may not write to its spool.
        NotFoundError: the source is not a folder.
        DataError: the source holds no files.
        StorageError: there is not enough disk; nothing is left behind.
    """
    folder = IntakePaths(home).spool
    try:
        if not folder.is_dir():
            raise StateError("the station has no spool", hint="Run `pht-station init` first.")
    except PermissionError:
        raise StateError(
            "the spool cannot be entered", hint="Run this as the station's operator (root)."
        ) from None
    return spool.stage_folder(folder, source).name
