"""The folders that a container sees: checked name by name, and known by where they lie, not by what they are called.

Compute owns these folders and could put a link in the place of one between the check and the engine's mount. So the check remembers on
which device and where in its file system a folder lies, and after the start the kernel's list of the container's mounts must show
exactly that.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.engine.mounts import Place
from station.sandbox.engine.procfs import place_of

_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def require_folder(given: str, parent: Path, what: str) -> Place:
    """Check that a folder lies below one of ours, with no link on the way.

    Args:
        given: its path.
        parent: ours, without links.
        what: what it is called in a refusal.

    Returns:
        Where it lies.

    Raises:
        RefusedError: it does not.
    """
    path = Path(given)
    inside = path != parent and path.is_relative_to(parent) and ".." not in path.parts and str(path) == given
    place = _place(path) if inside else None
    if place is None:
        raise RefusedError(
            RefusalCode.SANDBOX_ARGUMENT, f"{what} is not a folder of its own below {parent.name}/"
        )
    return place


def _place(path: Path) -> Place | None:
    """Open a folder one name after the other, following no link; ``None`` where that does not lead to a folder."""
    opened = []
    try:
        opened.append(os.open("/", _FOLDER))
        for name in path.parts[1:]:
            opened.append(os.open(name, _FOLDER, dir_fd=opened[-1]))
        return place_of(opened[-1])
    except OSError:
        return None
    finally:
        for each in opened:
            os.close(each)


def places_of(mounts: object, known: Mapping[str, Place]) -> dict[str, Place]:
    """Return where the sources of a request's mounts lie, by target.

    Args:
        mounts: ``HostConfig.Mounts``.
        known: those that were checked before. The others are files that come with this program.
    """
    found = dict(known)
    for each in mounts if isinstance(mounts, list) else []:
        if each["Target"] not in known and (place := _file_place(each["Source"])) is not None:
            found[each["Target"]] = place
    return found


def _file_place(source: str) -> Place | None:
    try:
        opened = os.open(source, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return place_of(opened)
    finally:
        os.close(opened)
