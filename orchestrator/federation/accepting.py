"""From an accepted order to one that is taken up, in two steps, so that its acceptance is durable in between.

`prepare` makes the run's folder with the order under a name that no worker looks for; the caller then makes the acceptance durable
elsewhere; `publish` gives the order its name. What a crash leaves between the two is in `prepared`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from policies.errors import StateError, StorageError
from policies.files import sync_folder, write_atomically

ORDER: Final = "order.json"
ACCEPTED: Final = "accepted.json"
"""The order, before anybody may take it up."""


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


def prepared(runs: Path) -> Iterator[Path]:
    """Folders of orders that are prepared and not published."""
    if runs.is_dir():
        yield from (path for path in sorted(runs.iterdir()) if (path / ACCEPTED).is_file())
