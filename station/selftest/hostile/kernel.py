"""The kernel's own files and keys: /proc, /sys, devices, the keyring, the clock, modules, whatever a host has one of."""

import ctypes
import mmap
import os
import stat
import struct
import time

from . import calls
from .attempts import Attempts, name_of, read_some, write_some

_DEVICES = {
    "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero",
}  # fmt: skip
_EMPTY_TO_US = (
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/latency_stats",
    "/proc/kmsg",
)


def proc_processes(found: Attempts, given: dict[str, object]) -> None:
    """See and reach processes of this host."""
    numbers = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    pid = int(str(given["host_pid"]))
    mark = str(given["host_canary"]).encode()
    seen = []
    for number in numbers:
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{number}/{name}", "rb") as file:
                    if mark in file.read():
                        seen.append(number)
            except OSError:
                continue
    few = len(numbers) <= 8 and numbers[:1] == [1]
    found.want(
        "list processes",
        held=few,
        by=f"{len(numbers)} of its own are there",
        what=f"{len(numbers)} are there",
    )
    found.want(
        "find a process of this host by its secret", held=not seen, by="it is not there", what=f"it is {seen}"
    )
    own = {
        "NSpid:\t1\n",
        "Name:\tdocker-init\n",
        "Name:\tcatatonit\n",
        "Name:\tpodman-init\n",
        "Name:\ttini\n",
        "Name:\tpython\n",
    }
    with open("/proc/1/status", encoding="ascii") as file:
        first = file.readline()
    found.want(
        "see who is process 1",
        held=first in own,
        by=f"it is its own: {first.split()[-1]}",
        what=first.strip(),
    )
    for name in ("cmdline", "environ", "root/etc/hostname", "cwd", "mem", "ns/net"):
        at = f"/proc/{pid}/{name}"
        if pid not in numbers:
            found.call(f"open {name} of this host's process {pid}", lambda a=at: read_some(a))  # type: ignore[misc]


def proc_reads(found: Attempts, given: dict[str, object]) -> None:
    """Read what the kernel tells of the whole host."""
    for name in _EMPTY_TO_US:
        found.call(f"read {name}", lambda n=name: len(read_some(n)))  # type: ignore[misc]
    found.call(
        "read the kernel's log (syslog)", lambda: calls.call("syslog", 3, ctypes.create_string_buffer(64), 64)
    )
    for name in ("/proc/scsi", "/proc/acpi"):
        try:
            inside = os.listdir(name)
        except OSError as error:
            found.stopped(f"list {name}", name_of(error.errno))
        else:
            found.want(f"list {name}", held=not inside, by="it is empty", what=", ".join(inside))
    try:
        with open("/proc/kallsyms", encoding="ascii") as file:
            address = file.readline().split()[0]
        hidden = set(address) == {"0"}
        found.want("read where the kernel lies", held=hidden, by="addresses are 0", what="an address")
    except OSError as error:
        found.stopped("read where the kernel lies", name_of(error.errno))


def proc_writes(found: Attempts, given: dict[str, object]) -> None:
    """Change this host by way of /proc; each value is harmless where it works."""
    core_pattern = _now("/proc/sys/kernel/core_pattern")
    for name, text in (
        ("/proc/sysrq-trigger", "\0"), ("/proc/sys/kernel/core_pattern", core_pattern),
        ("/proc/sys/kernel/hostname", "pht"), ("/proc/sys/kernel/modprobe", _now("/proc/sys/kernel/modprobe")),
        ("/proc/sys/vm/drop_caches", "0"), ("/proc/sys/vm/overcommit_memory", _now("/proc/sys/vm/overcommit_memory")),
        ("/proc/sys/fs/binfmt_misc/register", ""), ("/proc/irq/default_smp_affinity", "f"), ("/proc/bus/pci/devices", ""),
        ("/proc/asound/cards", ""), ("/proc/mtrr", ""), ("/proc/self/oom_score_adj", "-900"), ("/proc/1/oom_score_adj", "-900"),
        ("/proc/sys/net/ipv4/ip_forward", "0"),
    ):  # fmt: skip
        found.call(f"write to {name}", lambda n=name, t=text: write_some(n, t))  # type: ignore[misc]
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        score = int(file.read())
    found.want(
        "be killed later than this host's programs",
        held=score > 0,
        by=f"oom_score_adj {score}",
        what=str(score),
    )


def _now(name: str) -> str:
    try:
        with open(name, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def sys_files(found: Attempts, given: dict[str, object]) -> None:
    """Read and change the host's hardware by way of /sys."""
    for name, text in (
        ("/sys/kernel/uevent_helper", ""), ("/sys/kernel/mm/ksm/run", "0"), ("/sys/power/state", ""),
        ("/sys/kernel/profiling", "0"), ("/sys/module/kernel/parameters/consoleblank", "0"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "madvise"), ("/sys/fs/cgroup/cgroup.procs", "0"),
    ):  # fmt: skip
        found.call(f"write to {name}", lambda n=name, t=text: write_some(n, t))  # type: ignore[misc]
    for folder in (
        "/sys/firmware",
        "/sys/kernel/debug",
        "/sys/kernel/tracing",
        "/sys/kernel/security",
        "/sys/fs/bpf",
    ):
        try:
            inside = os.listdir(folder)
        except OSError as error:
            found.stopped(f"list {folder}", name_of(error.errno))
        else:
            found.want(f"list {folder}", held=not inside, by="it is empty", what=", ".join(inside)[:80])
    read_only = os.statvfs("/sys").f_flag & os.ST_RDONLY
    found.want(
        "have /sys to write to",
        held=bool(read_only),
        by="it is mounted read-only",
        what="it is not read-only",
    )


def devices(found: Attempts, given: dict[str, object]) -> None:
    """Find, make and open devices of this host."""
    extra = sorted(set(os.listdir("/dev")) - _DEVICES)
    found.want(
        "look for devices",
        held=not extra,
        by="only those that every program has",
        what=", ".join(extra)[:120],
    )
    for name in ("mem", "kmem", "port", "kmsg", "sda", "vda", "nvme0n1", "mapper/control", "kvm", "fuse", "net/tun", "loop-control",
                 "dri/card0", "nvidiactl", "vhost-net", "vsock", "input/event0", "snapshot"):  # fmt: skip
        found.call(f"open /dev/{name}", lambda n=name: os.close(os.open(f"/dev/{n}", os.O_RDONLY)))  # type: ignore[misc]
    for what, kind, numbers in (
        ("memory (1:1)", stat.S_IFCHR, (1, 1)), ("the kernel's log (1:11)", stat.S_IFCHR, (1, 11)),
        ("a disk (8:0)", stat.S_IFBLK, (8, 0)), ("a disk (254:0)", stat.S_IFBLK, (254, 0)), ("fuse (10:229)", stat.S_IFCHR, (10, 229)),
    ):  # fmt: skip
        found.call(f"make a device for {what}", lambda k=kind, n=numbers: _mknod(k, n))  # type: ignore[misc]
    _device_rules(found)


def _mknod(kind: int, numbers: tuple[int, int]) -> None:
    at = "/tmp/device"
    os.mknod(at, kind | 0o666, os.makedev(*numbers))
    try:
        os.close(os.open(at, os.O_RDONLY))
    finally:
        os.unlink(at)


def _device_rules(found: Attempts) -> None:
    try:
        with open("/sys/fs/cgroup/devices/devices.list", encoding="ascii") as file:
            rules = file.read().split("\n")
    except OSError:
        found.skipped("look at the rules for devices", "cgroup v2 keeps them in a program of the kernel")
        return
    wide = [
        rule
        for rule in rules
        if rule.startswith("a ") or (rule.startswith(("b", "c")) and rule.endswith("rwm") and "*:*" in rule)
    ]
    found.want(
        "be allowed every device by its control group",
        held=not wide,
        by=f"{len(rules)} narrow rules",
        what=", ".join(wide),
    )


def keyring(found: Attempts, given: dict[str, object]) -> None:
    """Keep or read keys in the kernel's keyrings, which no namespace of a container holds."""
    key = b"pht-selftest"
    found.call("add a key", lambda: calls.call("add_key", b"user", key, b"x", 1, -3))
    found.call("ask for a key", lambda: calls.call("request_key", b"user", key, None, -3))
    found.call("join the session's keyring", lambda: calls.call("keyctl", 1, 0))
    found.call("find root's keyring", lambda: calls.call("keyctl", 0, -4, 0))
    found.call("find the thread's keyring", lambda: calls.call("keyctl", 0, -1, 1))


def clock(found: Attempts, given: dict[str, object]) -> None:
    """Set this host's clock; each call sets what it is already, where it works."""
    now = struct.pack("=qq", int(time.time()), 0)
    buffer = ctypes.create_string_buffer(now)
    found.call("set the clock (clock_settime)", lambda: calls.call("clock_settime", 0, buffer))
    found.call("set the clock (settimeofday)", lambda: calls.call("settimeofday", buffer, None))
    steer = ctypes.create_string_buffer(struct.pack("=I4xq", 0x4000, 10000) + bytes(256))
    found.call("change the clock's speed (adjtimex)", lambda: calls.call("adjtimex", steer))
    found.call("open the hardware clock", lambda: os.close(os.open("/dev/rtc0", os.O_RDONLY)))


def modules(found: Attempts, given: dict[str, object]) -> None:
    """Load code into the kernel, or another kernel."""
    with open("/opt/bait/marker", "rb") as file:
        found.call("load a module (init_module)", lambda: calls.call("init_module", b"x" * 64, 64, b""))
        found.call("load a module (finit_module)", lambda: calls.call("finit_module", file.fileno(), b"", 0))
        found.call("load a kernel (kexec_load)", lambda: calls.call("kexec_load", 0, 0, None, 0))
        found.call(
            "load a kernel (kexec_file_load)",
            lambda: calls.call("kexec_file_load", file.fileno(), -1, 1, b"", 4),
        )
    found.call("restart this host (reboot)", lambda: calls.call("reboot", 0, 0, 0, None))
    found.call("give the host a file to swap to", lambda: calls.call("swapon", b"/tmp/none", 0))
    found.call("have the kernel log every process (acct)", lambda: calls.call("acct", None))
    found.call("talk to the hardware (iopl)", lambda: calls.call("iopl", 3))


def programs_in_the_kernel(found: Attempts, given: dict[str, object]) -> None:
    """Run a program of its own inside the kernel, or measure others."""
    attributes = ctypes.create_string_buffer(struct.pack("=IIII", 1, 4, 4, 1) + bytes(112))
    found.call("make a map of the kernel's programs (bpf)", lambda: calls.call("bpf", 0, attributes, 128))
    event = ctypes.create_string_buffer(struct.pack("=IIQ", 1, 128, 0) + bytes(112))
    found.call(
        "measure the whole host (perf_event_open)", lambda: calls.call("perf_event_open", event, -1, 0, -1, 0)
    )
    own = ctypes.create_string_buffer(struct.pack("=IIQ", 0, 128, 0) + bytes(112))
    found.call(
        "measure itself with the processor's counters",
        lambda: calls.call("perf_event_open", own, 0, -1, -1, 0),
    )
    found.call("watch every file (fanotify_init)", lambda: calls.call("fanotify_init", 0, 0))


def userfaultfd(found: Attempts, given: dict[str, object]) -> None:
    """Hold the kernel up at a page fault, as many exploits do."""
    found.call("make one that also stops the kernel", lambda: calls.call("userfaultfd", 0))
    try:
        os.close(calls.call("userfaultfd", 1))
    except OSError as error:
        found.stopped("make one for its own faults", name_of(error.errno))
    else:
        found.stopped(
            "make one for its own faults", "given by this engine; it holds up its own process and nobody else"
        )


def io_uring(found: Attempts, given: dict[str, object]) -> None:
    """Ask the kernel by a ring, past the filter of system calls, for what was refused otherwise."""
    setup = ctypes.create_string_buffer(120)
    try:
        ring = calls.call("io_uring_setup", 2, setup)
    except OSError as error:
        found.stopped("make a ring (io_uring_setup)", name_of(error.errno))
        return
    for path in (str(given["host_file"]), "/opt/bait/root-only"):
        number = _open_by_ring(ring, setup.raw, path)
        what = f"open {'a file of root' if 'bait' in path else 'a file of this host'} by a ring that this engine's seccomp profile gives"
        found.want(what, held=number < 0, by=name_of(-number), what="it was opened")
        ring = calls.call("io_uring_setup", 2, setup)
    os.close(ring)


def _open_by_ring(ring: int, setup: bytes, path: str) -> int:
    """Have the kernel open a file by a ring; return the descriptor or the negative errno. The ring is closed."""
    entries_sq, entries_cq = struct.unpack_from("=II", setup, 0)
    sq = struct.unpack_from("=7I", setup, 40)
    cq = struct.unpack_from("=7I", setup, 80)
    size = max(sq[6] + entries_sq * 4, cq[5] + entries_cq * 16, 4096)
    name = ctypes.create_string_buffer(path.encode())
    with (
        mmap.mmap(ring, size, offset=0) as rings,
        mmap.mmap(ring, entries_sq * 64, offset=0x10000000) as queue,
    ):
        # IORING_OP_OPENAT: opcode 18, directory AT_FDCWD, address of the path, no mode, O_RDONLY.
        queue[:64] = struct.pack("=BBHiQQIIQ24x", 18, 0, 0, -100, 0, ctypes.addressof(name), 0, 0, 7)
        rings[sq[6] : sq[6] + 4] = struct.pack("=I", 0)
        rings[sq[1] : sq[1] + 4] = struct.pack("=I", 1)
        calls.call("io_uring_enter", ring, 1, 1, 1, None, 0)
        result: int = struct.unpack_from("=Qi", rings, cq[5])[1]
    os.close(ring)
    return result
