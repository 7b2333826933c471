"""Reads what the kernel shows of a container, from /proc and the control groups. Any user of the host may read these.

Each text is read under a ceiling. Whatever cannot be read is missing in the view, and what is missing counts as not held.
"""

import itertools
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

from station.sandbox.engine.kernel import KernelView, ProcessView
from station.sandbox.engine.mounts import HIDDEN, UNCHANGEABLE, Place, parse_mounts

_MAX_BYTES: Final = 1 << 20
_MAX_PROCESSES: Final = 256
_NAMESPACES: Final = ("ipc", "mnt", "net", "pid", "uts")
_MOUNT_ID: Final = "mnt_id:"
_CONTROLLED: Final = {
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    "pids": ("pids.max",),
    "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "devices": ("devices.list",),
    "": ("memory.max", "memory.swap.max", "pids.max", "cpu.max"),
}


def view_of(pid: int, container_id: str, *, with_others: bool = False) -> KernelView | None:
    """Read what the kernel shows of a container.

    Args:
        pid: its first process, as the engine says.
        container_id: must stand in the name of the process's control group.
        with_others: look at the other processes of the group too.

    Returns:
        ``None`` where that process is not there any more, or is another container's.
    """
    try:
        # A descriptor stays with this process; its number may become another one's.
        folder = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        groups = _groups_of(_read("cgroup", folder), container_id)
        if not groups:
            return None
        view = KernelView(
            first=_process(folder),
            limits=_read("limits", folder),
            net_dev=_read("net/dev", folder),
            uid_map=_read("uid_map", folder),
            gid_map=_read("gid_map", folder),
            group=_limits_of(groups),
            others=_others(groups, pid) if with_others else (),
            shared=_shared(folder),
            label=_read("attr/current", folder),
            on_this_host=tuple(path for path in (*HIDDEN, *UNCHANGEABLE) if os.path.lexists(path)),
        )
        # Asked last: a process that ended in between left some of the texts above empty.
        return None if is_over(_read("status", folder)) else view
    finally:
        os.close(folder)


def is_over(status: str) -> bool:
    """Whether a process's program runs no more: it is gone, dead, or ending. Its memory goes first, then what it saw of the host.

    Args:
        status: its ``status``, read after all that is to be believed of it.
    """
    lines = status.splitlines()
    dead = any(line.startswith(("State:\tZ", "State:\tX")) for line in lines)
    return dead or not any(line.startswith("VmSize:") for line in lines)


def sees_processes(first: Path = Path("/proc/1")) -> bool:
    """Whether other users' processes can be seen here; under ``hidepid`` they cannot.

    Args:
        first: the host's first process, root's.
    """
    return bool(_read(f"{first}/cgroup"))


def place_of(descriptor: int) -> Place | None:
    """Return where an open folder or file lies, whatever it is called in this mount namespace; ``None`` where that cannot be said."""
    info = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii", errors="replace")
    numbers = [
        line.removeprefix(_MOUNT_ID).strip() for line in info.splitlines() if line.startswith(_MOUNT_ID)
    ]
    path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    for line in _read("/proc/self/mountinfo").splitlines():
        if line.split(" ", 1)[0] not in numbers:
            continue
        mounts = parse_mounts(line)
        if not mounts or not _is_under(path, mounts[0].target):
            return None
        within = path[len(mounts[0].target.rstrip("/")) :]
        return Place(mounts[0].place.device, (mounts[0].place.path.rstrip("/") + within) or "/")
    return None


def _is_under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _read(name: str, folder: int | None = None) -> str:
    """Return a file's text; nothing where it cannot be read or is too large to be what it should be."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - by descriptor
            data = file.read(_MAX_BYTES + 1)
    except OSError:
        return ""
    return data.decode("utf-8", "surrogateescape") if len(data) <= _MAX_BYTES else ""


def _process(folder: int) -> ProcessView:
    return ProcessView(_read("status", folder), _read("mountinfo", folder))


def _shared(folder: int) -> tuple[str, ...]:
    """Return the namespaces that are ours; only root may see another user's, so this adds to what must hold anyway."""
    found = []
    for name in _NAMESPACES:
        try:
            theirs = os.readlink(f"ns/{name}", dir_fd=folder)
            ours = str(Path(f"/proc/self/ns/{name}").readlink())
        except OSError:
            continue
        if theirs == ours:
            found.append(name)
    return tuple(found)


def _groups_of(text: str, container_id: str) -> dict[str, tuple[str, ...]]:
    """Return by controller (``""``: version 2) the folders of its group, from the one named after the container down."""
    hierarchies = _hierarchies()
    found = {}
    for line in text.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        parts = path.split("/")
        own = next((number for number, part in enumerate(parts) if container_id in part), None)
        if own is None or ".." in parts:
            continue
        paths = ["/".join(parts[: number + 1]) for number in range(own, len(parts))]
        for controller in controllers.split(","):
            target, top = hierarchies.get(controller, ("", ""))
            inside = [each for each in paths if target and _is_under(each, top)]
            found[controller] = tuple(
                f"{target}/{each[len(top.rstrip('/')) :].lstrip('/')}" for each in inside
            )
    return found


def _hierarchies() -> dict[str, tuple[str, str]]:
    """Return by controller where its groups are shown here, and which group lies at the top there."""
    found: dict[str, tuple[str, str]] = {}
    for line in _read("/proc/self/mountinfo").splitlines():
        for mount in parse_mounts(line) or ():
            if mount.kind == "cgroup2":
                found.setdefault("", (mount.target, mount.place.path))
            elif mount.kind == "cgroup":
                for name in mount.settings:
                    found.setdefault(name, (mount.target, mount.place.path))
    return found


def _limits_of(groups: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for controller, names in _CONTROLLED.items():
        for name in names:
            texts = [_read(f"{folder}/{name}") for folder in groups.get(controller, ())]
            if given := tuple(text for text in texts if text):
                # Under a mixed hierarchy a name may stand in both versions; both count.
                found[name] = (*found.get(name, ()), *given)
    return found


def _others(groups: dict[str, tuple[str, ...]], first: int) -> tuple[ProcessView, ...]:
    """Return the other processes of the container's group; those that end meanwhile are left out."""
    numbers: set[str] = set()
    for folder in itertools.chain.from_iterable(groups.values()):
        numbers |= set(_read(f"{folder}/cgroup.procs").split())
    return tuple(_views(numbers - {str(first)}))


def _views(numbers: Collection[str]) -> list[ProcessView]:
    """Look at processes; at none where there are more than a runtime has of its own, so that none goes unseen."""
    found = []
    for number in sorted(numbers) if len(numbers) <= _MAX_PROCESSES else ():
        view = ProcessView(_read(f"/proc/{number}/status"), _read(f"/proc/{number}/mountinfo"))
        if view.status and view.mountinfo:
            found.append(view)
    return found
