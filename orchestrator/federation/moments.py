"""When files were written last, and whether that was lately."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_OLD_S: Final = 8.0
"""Without a word for so long a process is taken for gone."""


def stamp(path: Path) -> object:
    """Return what changes each time that a file is replaced; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def touched(path: Path) -> datetime | None:
    """When a file was touched last; None where there is none."""
    try:
        return datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
    except OSError:
        return None


def is_old(moment: object, now: datetime) -> bool:
    """Whether whoever touched a file then is taken for gone now."""
    # A clock that was set back makes it younger than now: not for long, the next touch heals it.
    return not isinstance(moment, datetime) or (now - moment).total_seconds() > _OLD_S
