"""Staging by the operator: files into intake's spool, before intake is told of them."""

from pathlib import Path

from policies.documents import Name
from policies.errors import StateError
from station.intake.paths import IntakePaths
from station.intake.sources.archives import stage_archive
from station.intake.sources.folder import stage_folder as _stage_folder
from station.intake.spool import StagedBatch


def stage(home: Path, source: Path, collection: Name | None = None) -> str:
    """Copy a folder's files, or a zip's, durably into the spool and return the batch's name.

    Args:
        home: the station's home.
        source: a folder or a zip file.
        collection: where they belong; a batch without it waits until intake is told.

    Raises:
        StateError: the station has no intake yet, or this user may not write to its spool.
        NotFoundError: the source is neither a folder nor a file.
        DataError: the source holds no files, or it is an archive that is refused.
        StorageError: there is not enough disk; nothing is left behind.
    """
    spool = IntakePaths(home).spool
    try:
        if not spool.is_dir():
            raise StateError("the station has no spool", hint="Run `pht-station init` first.")
    except PermissionError:
        raise StateError(
            "the spool cannot be entered", hint="Run this as the station's operator (root)."
        ) from None
    return stage_into(spool, source, collection).name


def stage_into(spool: Path, source: Path, collection: Name | None = None) -> StagedBatch:
    """As `stage`, into a spool that is known to be there."""
    if source.is_file():
        return stage_archive(spool, source, collection)
    return _stage_folder(spool, source, collection)


def stage_folder(home: Path, source: Path) -> str:
    """As `stage`, for a folder whose collection is told later."""
    return stage(home, source)
