"""What the kernel shows of a container, against what the engine was asked for. Pure.

An engine says that it did as asked; whether it did stands in the kernel's own files about the container's first process and its control
group. They are read after the start and before the container counts as started.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from station.sandbox.engine.dialect import Json
from station.sandbox.engine.mounts import (
    AskedMounts,
    Memory,
    Place,
    has_binds,
    helper_problems,
    mount_problems,
    parse_mounts,
    parse_size,
)
from station.sandbox.spec import SelinuxLabel

_CAPABILITIES: Final = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_LIMITS: Final = {
    "nofile": "Max open files",
    "core": "Max core file size",
    "fsize": "Max file size",
    "nproc": "Max processes",
}
# gVisor's own processes open the container's files for it; nothing of the train runs in them. CHOWN, DAC_OVERRIDE,
# DAC_READ_SEARCH, FOWNER, FSETID, SYS_CHROOT, SYS_PTRACE.
_SENTRY_CAPABILITIES: Final = 0x000C_001F
# What every container may use: null, zero, full, random, urandom, tty, console, ptmx, pts, and tun, which needs a capability.
_PLAIN_DEVICES: Final = frozenset({"1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:1", "5:2", "10:200", "136:*"})
_UNBOUNDED: Final = 1 << 62
_NO_SECCOMP: Final = "no seccomp filter"
_ANOTHER_LABEL: Final = "another SELinux label"
_NO_PROCESS: Final = "no process in a control group of its own"
_NO_BINDS: Final = "no process with the mounts asked for"
_PRIVILEGES: Final = (_NO_SECCOMP, "new privileges", "capabilities")
# What a runtime sets between the engine's "started" and the program of the container.
_SET_LAST: Final = (*_PRIVILEGES, _ANOTHER_LABEL, "another user", "another group", "further groups")
# What the first process is called until then: runc renames itself, crun is itself, or the number of the copy that it runs from.
_RUNTIMES_OWN: Final = re.compile(r"runc:\[.{1,12}|crun|\d{1,3}")

RUNTIME_S: Final = 60.0
"""How long a runtime may take to the container's program: under a second, but on a machine that is overloaded."""
GVISOR_S: Final = 10.0
"""How long gVisor may take with processes of its own, beside a train that runs already."""


@dataclass(frozen=True, slots=True)
class ProcessView:
    """Texts of ``/proc/<pid>``."""

    status: str
    mountinfo: str


@dataclass(frozen=True, slots=True)
class KernelView:
    """What the kernel shows of a container; texts as they are, read under ceilings.

    Attributes:
        first: the process that the engine names.
        limits: its ``limits``.
        net_dev: its ``net/dev``.
        uid_map: its ``uid_map``.
        gid_map: its ``gid_map``.
        group: files of its control group by name, from the container's own group down to the process's.
        others: every other process of the group; looked at under gVisor only.
        shared: namespaces that are the launcher's own, where this could be seen.
        on_this_host: which of the paths that a container must not see or change exist.
        label: the first process's security label.
    """

    first: ProcessView
    limits: str
    net_dev: str
    uid_map: str
    gid_map: str
    group: Mapping[str, tuple[str, ...]]
    others: tuple[ProcessView, ...] = ()
    shared: tuple[str, ...] = ()
    on_this_host: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a container is held to, from the request that the engine was given.

    Attributes:
        user: as the container sees it, also its group.
        limits: ceilings per process, by the kernel's name.
        mounts: what it is to see.
        virtual: gVisor: the host's kernel sees its sentry, and not the train.
        devices: device numbers beyond those of every container: a leased GPU's.
        label: the security label that the hospital chose.
    """

    user: int
    memory: int
    cpus: float
    pids: int
    limits: Mapping[str, int]
    mounts: AskedMounts
    virtual: bool = False
    devices: frozenset[str] = field(default_factory=frozenset)
    label: SelinuxLabel = field(default_factory=SelinuxLabel)


def asked_of(
    body: Json,
    container_id: str,
    places: Mapping[str, Place],
    *,
    virtual: bool = False,
    devices: frozenset[str] = frozenset(),
    is_driver_mount: Callable[[str], bool] = lambda _target: False,
) -> Asked:
    """Read what was asked for from a dialect's own request.

    Args:
        body: what `Dialect.create_body` returned.
        container_id: what the engine called it.
        places: where the sources of its mounts lie, by target.
        virtual: the runtime is gVisor.
        devices: major and minor numbers of a leased GPU's nodes.
        is_driver_mount: whether a target is an exception for a leased GPU.
    """
    host: Any = body["HostConfig"]
    memory = {target: _memory(str(options)) for target, options in host["Tmpfs"].items()}
    memory["/dev/shm"] = Memory(host["ShmSize"])  # noqa: S108
    return Asked(
        user=int(str(body["User"]).partition(":")[0]),
        memory=host["Memory"],
        cpus=host["NanoCpus"] / 1e9,
        pids=host["PidsLimit"],
        limits={_LIMITS[each["Name"]]: each["Hard"] for each in host["Ulimits"]},
        mounts=AskedMounts(places, memory, container_id, is_driver_mount),
        virtual=virtual,
        devices=devices,
        label=_label(host["SecurityOpt"]),
    )


def _label(options: list[str]) -> SelinuxLabel:
    words = [option.split(":", 2) for option in options if option.startswith("label:")]
    return SelinuxLabel.model_validate({name: value for _, name, value in words})


def _memory(options: str) -> Memory:
    pairs = dict(each.partition("=")[::2] for each in options.split(","))
    inodes = parse_size(pairs["nr_inodes"]) if "nr_inodes" in pairs else None
    return Memory(parse_size(pairs.get("size", "")) or 0, inodes, "ro" in pairs)


def problems(view: KernelView | None, asked: Asked) -> tuple[str, ...]:
    """Return what the kernel shows otherwise than asked, by name; empty where all of it holds."""
    if view is None:
        return (_NO_PROCESS,)
    found = [
        *_group_problems(view.group, asked),
        *_network_problems(view.net_dev),
        *label_problems(view, asked),
    ]
    if asked.virtual:
        return (*found, *_virtual_problems(view, asked))
    found += [f"the host's {name} namespace" for name in view.shared]
    found += _user_problems(view, asked)
    found += _privilege_problems(view.first.status, 0)
    found += _limit_problems(view.limits, asked.limits)
    found += _device_problems(view.group, asked.devices)
    found += mount_problems(view.first.mountinfo, asked.mounts, view.on_this_host)
    return tuple(found)


def _virtual_problems(view: KernelView, asked: Asked) -> list[str]:
    """gVisor: the processes of the group are its sentry and its gofer; the train runs inside the first."""
    found: list[str] = []
    for each in (view.first, *view.others):
        found += _privilege_problems(each.status, _SENTRY_CAPABILITIES)
        found += helper_problems(each.mountinfo, asked.mounts)
    sentry = parse_mounts(view.first.mountinfo) or ()
    if len(sentry) != 1 or sentry[0].kind != "tmpfs":
        found.append("a sentry that sees files")
    if not any(has_binds(each.mountinfo, tuple(asked.mounts.binds)) for each in view.others):
        found.append(_NO_BINDS)
    return list(dict.fromkeys(found))


def patience_s(found: tuple[str, ...], view: KernelView | None, asked: Asked) -> float:
    """Return for how long after the start all of this may be so; 0 where it is the container's program that runs so."""
    if view is None:
        # It ended, and the engine has not seen it yet.
        return RUNTIME_S
    if asked.virtual:
        return GVISOR_S if all(each.startswith((_NO_BINDS, *_PRIVILEGES)) for each in found) else 0.0
    waits = _RUNTIMES_OWN.fullmatch(_fields(view.first.status).get("Name", "")) is not None
    return RUNTIME_S if waits and all(each.startswith(_SET_LAST) for each in found) else 0.0


def user_of(view: KernelView) -> int | None:
    """Return the first process's user on this host; ``None`` where it does not show exactly one."""
    numbers = _numbers(_fields(view.first.status).get("Uid", ""))
    return numbers[0] if len(numbers) == 4 and len(set(numbers)) == 1 else None


def _user_problems(view: KernelView, asked: Asked) -> list[str]:
    fields = _fields(view.first.status)
    user, group = on_host(view.uid_map, asked.user), on_host(view.gid_map, asked.user)
    found = []
    if not user or _numbers(fields.get("Uid", "")) != [user] * 4:
        found.append("another user")
    if not group or _numbers(fields.get("Gid", "")) != [group] * 4:
        found.append("another group")
    if "Groups" not in fields or set(_numbers(fields["Groups"])) - {group}:
        found.append("further groups")
    # The first of a process namespace of its own; a process of the host's has one number only.
    levels = _numbers(fields.get("NSpid", ""))
    if len(levels) < 2 or levels[-1] != 1:
        found.append("the host's pid namespace")
    return found


def on_host(mapping: str, number: int) -> int | None:
    """Translate a user or group of a container by its ``uid_map``; ``None`` where it has none on this host."""
    for line in mapping.splitlines():
        parts = _numbers(line)
        if len(parts) == 3 and parts[0] <= number < parts[0] + parts[2]:
            return parts[1] + number - parts[0]
    return None


def _privilege_problems(status: str, allowed: int) -> list[str]:
    fields = _fields(status)
    found = [
        f"capabilities ({name})"
        for name in _CAPABILITIES
        if (held := _hexadecimal(fields.get(name, ""))) is None or held & ~allowed
    ]
    if fields.get("NoNewPrivs") != "1":
        found.append("new privileges")
    if fields.get("Seccomp") != "2":
        found.append(_NO_SECCOMP)
    return found


def label_problems(view: KernelView, asked: Asked) -> list[str]:
    """Compare ``user:role:type:level``; where nothing was asked for, the engine's choice stands."""
    _, _, kind, level = (*view.label.rstrip("\0\n").split(":", 3), "", "", "", "")[:4]
    same = asked.label.type in {None, kind} and asked.label.level in {None, level}
    return [] if same else [_ANOTHER_LABEL]


def _limit_problems(text: str, asked: Mapping[str, int]) -> list[str]:
    found = []
    for name, ceiling in asked.items():
        (values,) = [line[26:].split()[:2] for line in text.splitlines() if line[:26].rstrip() == name][
            :1
        ] or [[]]
        numbers = [_numbers(each) for each in values]
        if len(numbers) != 2 or any(len(each) != 1 or each[0] > ceiling for each in numbers):
            found.append(f"no limit on {name.removeprefix('Max ')}")
    return found


def _group_problems(group: Mapping[str, tuple[str, ...]], asked: Asked) -> list[str]:
    found = []
    # Limits are in whole pages.
    if _smallest(group, "memory.limit_in_bytes", "memory.max") > asked.memory:
        found.append("no memory limit")
    # Version 1 counts memory and swap together, version 2 swap alone.
    together = _smallest(group, "memory.memsw.limit_in_bytes") <= asked.memory
    if not together and _smallest(group, "memory.swap.max") > 0:
        found.append("swap")
    if _smallest(group, "pids.max") > asked.pids:
        found.append("no pids limit")
    if _cpus(group) > asked.cpus * 1.001:
        found.append("no cpu quota")
    return found


def _smallest(group: Mapping[str, tuple[str, ...]], *names: str) -> int:
    """Return the tightest of a limit's values from the container's group down; unbounded where there is none."""
    values = [_numbers(text) for name in names for text in group.get(name, ())]
    return min((each[0] for each in values if len(each) == 1), default=_UNBOUNDED)


def _cpus(group: Mapping[str, tuple[str, ...]]) -> float:
    pairs = [_numbers(text) for text in group.get("cpu.max", ())]
    quotas, periods = group.get("cpu.cfs_quota_us", ()), group.get("cpu.cfs_period_us", ())
    pairs += [_numbers(f"{quota} {period}") for quota, period in zip(quotas, periods, strict=False)]
    shares = [each[0] / each[1] for each in pairs if len(each) == 2 and each[0] > 0 and each[1] > 0]
    return min(shares, default=float(_UNBOUNDED))


def _device_problems(group: Mapping[str, tuple[str, ...]], leased: frozenset[str]) -> list[str]:
    """Under cgroup v1 the list can be read. Under v2 it is a program; there the nodes that are missing and mknod are what holds."""
    for text in group.get("devices.list", ()):
        for line in text.splitlines():
            parts = line.split()
            plain = len(parts) == 3 and (
                (parts[0] in {"b", "c"} and parts[2] == "m")
                or (parts[0] == "c" and parts[1] in _PLAIN_DEVICES | leased)
            )
            if not plain:
                return ["devices"]
    return []


def _network_problems(net_dev: str) -> list[str]:
    lines = net_dev.splitlines()
    names = {line.partition(":")[0].strip() for line in lines[2:]}
    if len(lines) < 2 or not lines[0].startswith("Inter-"):
        return ["no list of networks"]
    return ["a network"] if names - {"lo"} else []


def _fields(status: str) -> dict[str, str]:
    """Read a ``status``; a name that stands there twice counts as not there, for then it is none of the kernel's."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for line in status.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            twice |= {name} & found.keys()
            found[name] = value.strip()
    return {name: value for name, value in found.items() if name not in twice}


def _numbers(text: str) -> list[int]:
    """Return the numbers of a text; nothing where a word of it is none (``max``, ``unlimited``)."""
    words = text.split()
    if not all(each.isascii() and each.isdigit() and len(each) < 20 for each in words):
        return []
    return [int(each) for each in words]


def _hexadecimal(text: str) -> int | None:
    try:
        return int(text, 16) if text.isascii() and 0 < len(text) <= 16 else None
    except ValueError:
        return None
