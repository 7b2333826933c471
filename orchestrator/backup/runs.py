"""Copies a run's folder while its process writes: files that belong together, and the weights they name.

A round is written in steps (`checkpoint.json`, `rounds.jsonl`, `state.json`), each file whole. A copy of one step's
file beside another step's would go on from wrong weights, so what was read is read again and must be the same.
"""

import time
from pathlib import Path
from typing import Final

from orchestrator.federation.accepting import ACCEPTED, ORDER
from orchestrator.federation.orders import RunFolder, weights_of
from policies.errors import StateError, UnavailableError

_LEFT_OUT: Final = frozenset({"task.json", "serverapp.log", "alive"})
"""A claimed task's token is the SuperLink's of the moment; the log is the machine's."""
_TRIES: Final = 200
_PAUSE_S: Final = 0.05

Files = dict[str, tuple[bytes, int, int]]
"""Name to content, modification time in ns, and mode."""


def read_run(folder: Path) -> Files:
    """Return the files of a run as they were at one moment.

    Raises:
        UnavailableError: they changed all the time.
    """
    before = _read(folder)
    for _ in range(_TRIES):
        again = _read(folder)
        if again == before:
            return before
        before = again
        time.sleep(_PAUSE_S)
    raise UnavailableError(f"the run {folder.name[:12]} changes all the time", hint="Try again.")


def needed_blobs(folder: RunFolder) -> frozenset[str]:
    """Return the weights that a run goes on from, or ended with; of a copy of its folder.

    Raises:
        StateError: its files are damaged.
    """
    progress = folder.read_progress()
    return weights_of(folder, folder.read_order()) | ({progress.weights} if progress.weights else frozenset())


def is_whole(files: Files) -> bool:
    """Whether the folder holds an order: one that is just being made has none yet."""
    return ORDER in files or ACCEPTED in files


def _read(folder: Path) -> Files:
    found: Files = {}
    try:
        names = sorted(folder.iterdir())
    except FileNotFoundError:
        raise StateError(f"the run {folder.name[:12]} has no folder") from None
    for path in names:
        # Names with a dot are files on their way.
        if path.name in _LEFT_OUT or path.name.startswith(".") or not path.is_file():
            continue
        try:
            status = path.stat()
            found[path.name] = (path.read_bytes(), status.st_mtime_ns, status.st_mode & 0o777)
        except FileNotFoundError:
            continue
    return found
