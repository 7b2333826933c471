"""How a run came to be where it is: each change of its state with its moment, and who asked it to stop or to go on.

`runs/<order hex>/history.jsonl`, a line each, appended before the state itself is replaced: a crash between the two repeats a line,
which a reader drops.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from policies.documents import format_moment
from policies.errors import StorageError

HISTORY: Final = "history.jsonl"
MAX_SHOWN: Final = 500
_MAX_BYTES: Final = 4 << 20


def note_change(folder: Path, state: str, round_: int, code: str) -> None:
    """Write down that a run is in another state now.

    Raises:
        StorageError: the disk is full.
    """
    _append(folder, {"state": state, "round": round_, "code": code})


def note_wish(folder: Path, wish: str, by: str) -> None:
    """Write down that somebody asked a run to stop, or to go on.

    Raises:
        StorageError: the disk is full.
    """
    _append(folder, {"asked": wish, "by": by})


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return the newest `MAX_SHOWN` lines, oldest first; what a crash repeated or cut off is left out."""
    try:
        with (folder / HISTORY).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _MAX_BYTES))
            data = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"{HISTORY}: cannot be read ({error.strerror})") from error
    found: list[dict[str, Any]] = []
    for line in data.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and not (found and _same(found[-1], entry)):
            found.append(entry)
    return found[-MAX_SHOWN:]


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return {**one, "at": None} == {**other, "at": None}


def _append(folder: Path, entry: dict[str, Any]) -> None:
    line = json.dumps({"at": format_moment(datetime.now(UTC)), **entry}, sort_keys=True) + "\n"
    try:
        with (folder / HISTORY).open("ab") as file:
            # A line that was cut off ends here.
            file.write(("" if _ends_whole(folder / HISTORY) else "\n").encode() + line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"{HISTORY}: cannot be written ({error.strerror})") from error


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
