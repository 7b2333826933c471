"""The table of attacks: what is tried, where, and under which ceilings. Each row is one line of the report. Pure.

A row names a probe (code that runs inside the container, ``hostile/probes.py``) or a lie (what the train answers on its socket,
``hostile/lies.py``). Bombs run in a container of their own under small ceilings: what holds 128 MiB holds 128 GiB by the same
means, and the hospital's host is not made to feel it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pydantic import JsonValue

from station.sandbox.spec import MIB


@dataclass(frozen=True, slots=True)
class Attack:
    """One line of the table.

    Attributes:
        name: of the attack, and of its probe or lie unless `does` names another.
        area: by which lines can be chosen.
        tried: in a sentence, as an auditor reads it.
        does: the probe or lie.
        kind: who does it: a probe in the container, a lie before the first request or in answer to one, or this host.
        given: what the probe is told beside the baits.
        changed: fields of the container's spec, and in a container of its own.
        alone: in a container of its own.
        may_be_killed: being killed for its memory is how this ends.
        outside: what is looked at from this host afterwards.
    """

    name: str
    area: str
    tried: str
    does: str = ""
    kind: str = "probe"
    given: Mapping[str, JsonValue] = field(default_factory=lambda: MappingProxyType({}))
    changed: Mapping[str, JsonValue] = field(default_factory=lambda: MappingProxyType({}))
    alone: bool = False
    may_be_killed: bool = False
    outside: str = ""

    @property
    def action(self) -> str:
        """The probe's or lie's name."""
        return self.does or self.name


def _memory(name: str, how: str) -> Attack:
    small = {"memory_bytes": 128 * MIB, "scratch_bytes": 512 * MIB}
    return Attack(
        name, "limits", f"take memory without end, as {how}", does="memory", given={"how": how, "memory_bytes": 128 * MIB},
        changed=small, alone=True, may_be_killed=True,
    )  # fmt: skip


def _lie(name: str, tried: str, *, before: bool = False, large: bool = False) -> Attack:
    return Attack(
        name,
        "answers",
        tried,
        kind="before" if before else "lie",
        alone=True,
        given={"large": True} if large else {},
    )


_PIDS: Final = 40
_SMALL: Final = {"memory_bytes": 256 * MIB, "scratch_bytes": 16 * MIB}

ATTACKS: Final[tuple[Attack, ...]] = (
    Attack("network-v4", "network", "reach this host, its engine and the world by IPv4", outside="listeners"),
    Attack("network-v6", "network", "reach this host, the link and the world by IPv6", outside="listeners"),
    Attack("dns", "network", "resolve a name by the library and by each resolver of this host"),
    Attack("raw", "network", "open raw and packet sockets"),
    Attack("netlink", "network", "change the network, or ask the kernel's audit, by netlink"),
    Attack("vsock", "network", "reach the hypervisor and this host by vsock", outside="listeners"),
    Attack("abstract", "network", "reach a socket of this host that has no file", outside="listeners"),
    Attack("engine-socket", "host", "reach the container engine's socket"),
    Attack("launcher-socket", "host", "reach the launcher and the station's programs"),
    Attack("host-paths", "host", "read a file of this host by path, link, handle and the kernel's own links"),
    Attack("seen-mounts", "host", "find a folder or a disk of this host among the mounts"),
    Attack("names", "host", "read which hospital this is: its name, domain, resolvers and hosts"),
    Attack("environment", "host", "find variables of the engine or the station"),
    Attack("start", "host", "be started otherwise than the station says, or as another image"),
    Attack("left-behind", "host", "find what an earlier train left in the places it could write to", alone=True),
    Attack("other-cohort", "data", "find and read another train's cohort"),
    Attack("other-patient", "data", "find and read another patient, as a map train that is given one"),
    Attack("cohort-written", "data", "change the cohort, whose files are everybody's to write"),
    Attack("write-outside", "data", "write anywhere but in its own memory"),
    Attack("run-written", "data", "run a program that it wrote itself"),
    Attack("proc-processes", "kernel", "see and reach this host's processes by /proc"),
    Attack("proc-reads", "kernel", "read the kernel's memory, log, keys and addresses by /proc"),
    Attack("proc-writes", "kernel", "change this host by /proc: sysrq, core_pattern, modprobe, sysctls"),
    Attack("sys-files", "kernel", "read and change this host's hardware by /sys"),
    Attack("devices", "kernel", "find, make and open devices of this host"),
    Attack("keyring", "kernel", "keep and read keys in the kernel's keyrings"),
    Attack("clock", "kernel", "set this host's clock"),
    Attack("modules", "kernel", "load a module or another kernel, restart this host, add swap"),
    Attack("programs-in-the-kernel", "kernel", "run programs in the kernel (bpf), measure others (perf), watch files"),
    Attack("userfaultfd", "kernel", "hold the kernel up at a page fault"),
    Attack("io-uring", "kernel", "get by io_uring what was refused otherwise"),
    Attack("users", "privileges", "be or become root, another user, or in a group"),
    Attack("set-user-id", "privileges", "run a program that is set-user-id to root"),
    Attack("capabilities", "privileges", "have or take capabilities"),
    Attack("seccomp", "privileges", "run without the engine's filter of system calls"),
    Attack("namespaces", "privileges", "make user and other namespaces, or enter this host's"),
    Attack("mounts", "privileges", "mount, remount, unmount, change the root, by the old calls and the new"),
    Attack("other-processes", "privileges", "trace, read and signal this host's processes (ptrace, process_vm_readv, pidfd)"),
    Attack("shared-memory", "privileges", "read memory that this host's programs share"),
    Attack("control-groups", "privileges", "change its limits, leave its control group, set a release_agent"),
    Attack("ceilings", "limits", "have no limit on memory, swap or processes"),
    Attack("fork-bomb", "limits", "start processes without end", does="forks", given={"pids": _PIDS}, changed={"pids": _PIDS}, alone=True),
    Attack("zombies", "limits", "leave dead processes behind, which count"),
    _memory("memory-bomb", "pages"),
    _memory("memory-bomb-memfd", "a memory file"),
    _memory("memory-bomb-scratch", "files in scratch"),
    _memory("memory-bomb-shm", "files in /dev/shm"),
    _memory("memory-bomb-sysv", "shared memory"),
    Attack("disk-bomb", "limits", "fill its tmpfs beyond their sizes", does="disk", changed=_SMALL, given={"scratch_bytes": 16 * MIB}, alone=True),
    Attack(
        "inode-bomb", "limits", "make files without end", does="inodes", changed=_SMALL, alone=True, may_be_killed=True
    ),
    Attack("file-size", "limits", "write one file without end"),
    Attack("open-files", "limits", "open files without end"),
    Attack("log-bomb", "limits", "write to its output without end", does="output", given={"output_bytes": 16 * MIB}, alone=True, outside="log"),
    Attack("processor", "limits", "compute on more processors than it was given", given={"cpus": 0.5}, changed={"cpus": 0.5}, alone=True),
    Attack("core-dump", "limits", "crash, so that its memory is written to this host's disk", alone=True, outside="dumps"),
    Attack("never-ends", "limits", "compute for ever", kind="lie", does="silence", alone=True),
    Attack("wall-clock", "limits", "outlive the run that it was started for", kind="host", alone=True, changed={"wall_clock_s": 2}),
    Attack("control-socket", "control", "take the control socket's place, or write beside it"),
    Attack("second-connection", "control", "connect to the control socket a second time"),
    Attack("stranger", "control", "connect to the control socket as another user of this host", kind="host", alone=True),
    _lie("garbage-before-hello", "speak another protocol", before=True),
    _lie("reply-before-request", "answer before it is asked", before=True),
    _lie("two-replies", "answer one request twice"),
    _lie("other-id", "answer another request than was asked"),
    _lie("endless", "a reply that never ends: go on behind the announced end"),
    _lie("never-complete", "a reply that never ends: announce more than is sent, and wait"),
    _lie("drip", "a reply that comes a byte at a time"),
    _lie("drip-arrays", "arrays that come a byte at a time"),
    _lie("deaf", "take nothing more of what it is sent"),
    _lie("flood", "send without end while it is asked"),
    _lie("half-closed", "say that it will never say anything"),
    _lie("truncated", "announce more than is sent, and hang up"),
    _lie("arrays-length", "announce arrays of 4 EiB"),
    _lie("head-length", "announce a head of 4 GiB"),
    _lie("magic", "answer in another protocol"),
    _lie("more-keys", "a reply with a key of its own"),
    _lie("error-with-results", "an error that brings results along"),
    _lie("code-in-error", "a text in place of an error code"),
    _lie("deep-json", "JSON 50 000 levels deep"),
    _lie("duplicate-keys", "a key that stands twice"),
    _lie("huge-number", "a number of 100 000 digits"),
    _lie("huge-exponent", "1e999999"),
    _lie("nan-in-head", "NaN in JSON"),
    _lie("half-characters", "half a character"),
    _lie("not-an-object", "a list in place of a head"),
    _lie("header-length", "a safetensors header that says it is 4 EiB long"),
    _lie("header-past-end", "a tensor that lies past the end of the file"),
    _lie("header-overlap", "two tensors on the same bytes"),
    _lie("header-hole", "bytes that no tensor owns"),
    _lie("header-negative", "a tensor that begins before the file"),
    _lie("header-shape", "a shape whose size overflows"),
    _lie("header-text", "a text in the header's metadata"),
    _lie("many-tensors", "100 000 tensors", large=True),
    _lie("million-tensors", "a million tensors", large=True),
    _lie("compression-bomb", "a compressed answer that would unpack to 256 MiB (nothing in the way of an answer unpacks)"),
    _lie("nan-payload", "NaN in place of a weight"),
    _lie("infinite-payload", "infinity in place of a weight"),
    _lie("other-tensor", "a tensor that nobody asked for"),
    Attack("gpu-residue", "gpu", "read what an earlier train left in the GPU's memory", kind="gpu", alone=True),
)  # fmt: skip

AREAS: Final = tuple(dict.fromkeys(attack.area for attack in ATTACKS))


def attack_named(name: str) -> Attack:
    """Return one attack.

    >>> attack_named("keyring").area
    'kernel'
    """
    return next(attack for attack in ATTACKS if attack.name == name)
