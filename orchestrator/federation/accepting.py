"""From an accepted order to one that is taken up, in two steps, so that its acceptance is durable in between.

`prepare` makes the run's folder with the order under a name that no worker looks for; the caller then makes the acceptance durable
elsewhere; `publish` gives the order its name. What a crash leaves between the two is in `unpublished`.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from policies.errors import StateError, StorageError
from policies.files import sync_folder, write_atomically

ORDER: Final = "order.json"
ACCEPTED: Final = "accepted.json"
"""The order, before anybody may take it up."""
_RUN: Final = re.compile(r"[0-9a-f]{64}")
_GONE: Final = ".gone-"
"""Begins the name of a folder that is being removed: whole under its own name, or not there."""


def prepare(folder: Path, order: bytes) -> None:
    """Have the order durable in its folder; one that may be taken up already stays as it is."""
    if not (folder / ORDER).exists():
        write_atomically(folder / ACCEPTED, order)
        sync_folder(folder.parent)


def publish(folder: Path) -> None:
    """Let a prepared order be taken up; one that may be already stays as it is.

    Raises:
        StateError: it is not prepared.
        StorageError: the folder cannot be written.
    """
    try:
        (folder / ACCEPTED).rename(folder / ORDER)
        sync_folder(folder)
    except FileNotFoundError:
        if not (folder / ORDER).exists():
            raise StateError("the order has no folder", hint="Give the same order again.") from None
    except OSError as error:
        raise StorageError(f"{ORDER}: cannot be written ({os.strerror(error.errno or 0)})") from error


def unpublished(runs: Path) -> Iterator[Path]:
    """Folders of orders that nobody may take up: prepared, or only begun."""
    if runs.is_dir():
        yield from (
            path
            for path in sorted(runs.iterdir())
            if _RUN.fullmatch(path.name) and not (path / ORDER).exists()
        )


def discard(folder: Path) -> None:
    """Remove a run's folder whose order was never accepted; the caller has seen to it that nobody is accepting it.

    Raises:
        OSError: it cannot be removed; it is there still, or not.
    """
    gone = folder.with_name(f"{_GONE}{folder.name}")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    sync_folder(folder.parent)
    shutil.rmtree(gone)


def forget_discarded(runs: Path) -> None:
    """Remove what a crash left of folders that were being removed."""
    for path in runs.glob(f"{_GONE}*"):
        shutil.rmtree(path, ignore_errors=True)
