"""What is mounted in a container, as the kernel shows it, against what was asked for. Pure.

A train sees its two folders and its own memory. Everything else that may be mounted is what an engine makes for every container, and
stands here by name; what does not is refused.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from mmap import PAGESIZE
from typing import Final

MAX_MOUNTS: Final = 512

_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
_SIZE: Final = re.compile(r"(\d{1,19})([kmg]?)")
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SAFE: Final = frozenset({"nosuid", "nodev", "noexec"})

# Target: which file systems, and what they must be mounted with.
_OF_THE_ENGINE: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    "/proc": (frozenset({"proc"}), _SAFE),
    "/dev": (frozenset({"tmpfs"}), frozenset({"nosuid"})),
    "/dev/pts": (frozenset({"devpts"}), frozenset({"nosuid", "noexec"})),
    "/dev/mqueue": (frozenset({"mqueue"}), _SAFE),
    "/sys": (frozenset({"sysfs"}), _SAFE | {"ro"}),
    # Under cgroup v1 an empty folder of root's, under v2 the group itself.
    "/sys/fs/cgroup": (frozenset({"tmpfs", "cgroup2"}), _SAFE),
}
_FILES_OF_THE_ENGINE: Final = (
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/passwd",
    "/etc/group",
)
# Who may not make nodes (a rootless engine) shows the host's own, each by itself.
_NODES: Final = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "tty", "random", "urandom"))
# What /sbin leads to follows the image's distribution.
_INITS: Final = (
    "/sbin/docker-init",
    "/usr/sbin/docker-init",
    "/usr/bin/docker-init",
    "/dev/init",
    "/run/podman-init",
)
_INIT_PROGRAMS: Final = ("tini", "tini-static", "docker-init", "catatonit")

HIDDEN: Final = (
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
)
"""What a container must not see where the host has it."""
UNCHANGEABLE: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""What a container may see and not change."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a folder or file lies, whatever the mount namespace: on which device, and where in that file system.

    Attributes:
        device: major and minor number.
        path: from the file system's own root.
    """

    device: str
    path: str


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of ``/proc/<pid>/mountinfo``."""

    place: Place
    target: str
    options: frozenset[str]
    kind: str
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Memory:
    """A tmpfs that was asked for.

    Attributes:
        size: its ceiling.
        inodes: ceiling on files; ``None`` where the engine cannot be asked for one, and memory alone bounds them.
        read_only: nothing can be written there.
    """

    size: int
    inodes: int | None = None
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class AskedMounts:
    """What a container was to see.

    Attributes:
        binds: folders and files of the host by where they are seen; each read-only.
        memory: tmpfs by where they are.
        container_id: stands in the paths of files that engines make for a container.
        is_driver_mount: whether a target is an exception for a leased GPU.
    """

    binds: Mapping[str, Place]
    memory: Mapping[str, Memory]
    container_id: str
    is_driver_mount: Callable[[str], bool] = lambda _target: False


def parse_mounts(text: str) -> tuple[Mount, ...] | None:
    """Return the mounts of a ``mountinfo``; ``None`` where it is none that can be understood."""
    lines = text.splitlines()
    if not lines or len(lines) > MAX_MOUNTS:
        return None
    found = [_parse_line(line) for line in lines]
    return None if any(each is None for each in found) else tuple(each for each in found if each is not None)


def _parse_line(line: str) -> Mount | None:
    before, dash, after = line.partition(" - ")
    fields, more = before.split(" "), after.split(" ")
    if not dash or len(fields) < 6 or len(more) < 3:
        return None
    settings = dict(_pair(each) for each in more[2].split(","))
    place = Place(fields[2], _unescaped(fields[3]))
    return Mount(place, _unescaped(fields[4]), frozenset(fields[5].split(",")), more[0], settings)


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def mount_problems(text: str, asked: AskedMounts, on_this_host: Iterable[str]) -> tuple[str, ...]:
    """Return what of a container's mounts is not as asked, by name.

    Args:
        text: its ``mountinfo``.
        asked: what it was to see.
        on_this_host: which of `HIDDEN` and `UNCHANGEABLE` there are.
    """
    mounts = parse_mounts(text)
    if mounts is None:
        return ("no list of mounts",)
    by_target = {each.target: each for each in mounts}
    found = [] if len(by_target) == len(mounts) else ["one mount over another"]
    found += [f"{problem} at {shown(each.target)}" for each in mounts if (problem := _problem(each, asked))]
    wanted = {"/", "/proc", *asked.binds, *asked.memory}
    found += [f"no mount at {target}" for target in sorted(wanted - by_target.keys())]
    for path in on_this_host:
        mount = by_target.get(path)
        if mount is None or (path in HIDDEN and not _is_empty(mount)):
            found.append(f"{path} is not closed")
    return tuple(found)


def helper_problems(text: str, asked: AskedMounts) -> tuple[str, ...]:
    """Return what is wrong with the mounts of one of gVisor's own processes.

    The sentry has an empty root; the gofer, which opens files for it, has the container's root and what is bound there. That the two
    folders are read-only is the sentry's to hold, not these mounts'.
    """
    mounts = parse_mounts(text)
    if mounts is None:
        return ("no list of mounts",)
    found = []
    for each in mounts:
        if each.target == "/":
            problem = "" if "ro" in each.options else "a writable root"
        elif each.target in asked.binds:
            problem = "" if each.place == asked.binds[each.target] else "another place"
        else:
            problem = "" if _is_file_of_the_engine(each, asked) else "a mount that nobody asked for"
        if problem:
            found.append(f"{problem} at {shown(each.target)}")
    return tuple(found)


def _problem(mount: Mount, asked: AskedMounts) -> str:
    """Say what is wrong with one mount, or nothing."""
    target, options = mount.target, mount.options
    if target == "/":
        return "" if "ro" in options else "a writable root"
    if target in asked.binds:
        if mount.place != asked.binds[target]:
            return "another place"
        return "" if "ro" in options else "a writable mount"
    if target in asked.memory:
        return _memory_problem(mount, asked.memory[target])
    if target in _OF_THE_ENGINE:
        kinds, needed = _OF_THE_ENGINE[target]
        held = mount.kind in kinds and needed <= options and (mount.kind != "cgroup2" or "ro" in options)
        return "" if held else "an open mount"
    if target in _NODES:
        return "" if mount.kind == "devtmpfs" and f"/dev{mount.place.path}" == target else "another node"
    if target.startswith(("/proc/", "/sys/")):
        return "" if _closes(mount) or _is_driver_mount(mount, asked) else "a mount that nobody asked for"
    if _is_file_of_the_engine(mount, asked):
        return "" if "ro" in options else "a writable mount"
    return "" if _is_driver_mount(mount, asked) else "a mount that nobody asked for"


def _memory_problem(mount: Mount, asked: Memory) -> str:
    if mount.kind != "tmpfs" or not mount.options >= _SAFE:
        return "no closed memory"
    if asked.read_only and "ro" not in mount.options:
        return "a writable mount"
    size, inodes = parse_size(mount.settings.get("size", "")), parse_size(mount.settings.get("nr_inodes", ""))
    # The kernel rounds a size up to whole pages.
    if size is None or size > -(-asked.size // PAGESIZE) * PAGESIZE:
        return "memory without its ceiling"
    if asked.inodes is not None and (inodes is None or inodes > asked.inodes):
        return "files without their ceiling"
    return ""


def _closes(mount: Mount) -> bool:
    """Whether a mount below /proc or /sys takes something away: it is empty, or shows the same read-only."""
    under_proc = mount.target.startswith("/proc/")
    own = {"proc"} if under_proc else {"sysfs", "cgroup", "cgroup2"}
    return _is_empty(mount) or (mount.kind in own and "ro" in mount.options)


def _is_empty(mount: Mount) -> bool:
    return (mount.kind in {"tmpfs", "devtmpfs"} and mount.place.path == "/null") or (
        mount.kind == "tmpfs" and mount.place.path == "/" and "ro" in mount.options
    )


def _is_file_of_the_engine(mount: Mount, asked: AskedMounts) -> bool:
    parts = mount.place.path.split("/")
    names = {target.rpartition("/")[2] for target in _FILES_OF_THE_ENGINE}
    if mount.target in _FILES_OF_THE_ENGINE:
        names = {mount.target.rpartition("/")[2]}
    # Where an image has a link there (/etc/resolv.conf into /run), the kernel shows the place that it leads to.
    if asked.container_id in parts and parts[-1] in names:
        return True
    return mount.target in _INITS and parts[-1] in _INIT_PROGRAMS


def _is_driver_mount(mount: Mount, asked: AskedMounts) -> bool:
    # Nodes of devices and sockets are written through, whatever their mount says.
    through = mount.kind == "devtmpfs" or mount.target.startswith("/run/nvidia-")
    return ("ro" in mount.options or through) and asked.is_driver_mount(mount.target)


def parse_size(text: str) -> int | None:
    """Return a size as the kernel writes it: ``32768k``."""
    found = _SIZE.fullmatch(text)
    return int(found[1]) * _UNITS[found[2]] if found else None


def shown(target: str) -> str:
    """Return a target as it may stand in an error."""
    printable = all(each.isascii() and each.isprintable() for each in target)
    return target if printable and len(target) <= 80 else "a place with an odd name"


def has_binds(text: str, targets: Sequence[str]) -> bool:
    """Whether a list of mounts has all these targets."""
    mounts = parse_mounts(text) or ()
    return {each.target for each in mounts} >= set(targets)
