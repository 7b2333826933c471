"""Take more than it was given: processes, memory in each of its forms, files, output, processor time."""

import ctypes
import mmap
import os
import resource
import signal
import time

from . import calls
from .attempts import Attempts, name_of

_MIB = 1 << 20


def _whole(given: dict[str, object], name: str) -> int:
    return int(str(given[name]))


def forks(found: Attempts, given: dict[str, object]) -> None:
    """Start processes without end."""
    allowed = _whole(given, "pids")
    children: list[int] = []
    reason = "no end"
    try:
        while len(children) < allowed * 4:
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
    except OSError as error:
        reason = name_of(error.errno)
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    count = len(children)
    found.want(
        "start processes without end",
        held=count < allowed,
        by=f"{reason} after {count}",
        what=f"{count} ran of {allowed} allowed",
    )


def zombies(found: Attempts, given: dict[str, object]) -> None:
    """Leave dead children behind, which count as processes until somebody asks after them."""
    for _ in range(8):
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
        os.waitpid(child, 0)
    left = 8
    deadline = time.monotonic() + float(str(given.get("wait_s", 60)))
    while left and time.monotonic() < deadline:
        left = sum(1 for name in os.listdir("/proc") if name.isdigit() and _is_zombie(name))
    found.want(
        "leave dead processes behind", held=not left, by="process 1 takes them away", what=f"{left} stayed"
    )


def _is_zombie(number: str) -> bool:
    try:
        with open(f"/proc/{number}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return False


def memory(found: Attempts, given: dict[str, object]) -> None:
    """Take memory: `how` says as what. Takes until it is stopped, or has twice of what is allowed."""
    allowed, how = _whole(given, "memory_bytes"), str(given["how"])
    goal = allowed * 2
    taken = 0
    # The killer shall take this process, not the train that tells of it.
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")
    kept: list[object] = []
    while taken < goal:
        kept.append(_take(how, taken // (16 * _MIB)))
        taken += 16 * _MIB
    found.got(f"take memory as {how}", f"it has {taken // _MIB} MiB of {allowed // _MIB} allowed")


def _take(how: str, number: int) -> object:
    size = 16 * _MIB
    if how == "pages":
        area = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for at in range(0, size, 4096):
            area[at] = 1
        return area
    if how == "a memory file":
        descriptor = calls.call("memfd_create", b"x", 0)
        _fill(descriptor, size)
        return descriptor
    if how == "shared memory":
        libc = calls.libc()
        libc.shmat.restype = ctypes.c_void_p
        segment = libc.shmget(0, size, 0o1600)
        if segment < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        ctypes.memset(libc.shmat(segment, None, 0), 1, size)
        return segment
    folder = {"files in scratch": "/train/scratch", "files in /dev/shm": "/dev/shm"}[how]
    descriptor = os.open(f"{folder}/m{number}", os.O_CREAT | os.O_RDWR)
    _fill(descriptor, size)
    return descriptor


def _fill(descriptor: int, size: int) -> None:
    chunk = b"x" * _MIB
    for _ in range(size // _MIB):
        os.write(descriptor, chunk)


def disk(found: Attempts, given: dict[str, object]) -> None:
    """Write more into its tmpfs than their sizes allow, in many files and in one."""
    scratch = _whole(given, "scratch_bytes")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for folder in ("/tmp", "/train/scratch", "/dev/shm"):
        written, by = 0, "no end"
        try:
            number = 0
            while written < scratch * 2:
                with open(f"{folder}/{number}", "wb", buffering=0) as file:
                    for _ in range(4):
                        written += file.write(b"x" * _MIB)
                number += 1
        except OSError as error:
            by = name_of(error.errno)
        for name in os.listdir(folder):
            os.unlink(f"{folder}/{name}")
        held = written <= scratch
        found.want(
            f"fill {folder}",
            held=held,
            by=f"{by} at {written // _MIB} MiB",
            what=f"{written // _MIB} MiB were written",
        )
    at = "/train/scratch/sparse"
    found.call(
        "make a file larger than scratch",
        lambda: os.truncate(os.open(at, os.O_CREAT | os.O_RDWR), scratch * 2),
    )


def inodes(found: Attempts, given: dict[str, object]) -> None:
    """Make files without end, which take kernel memory and no bytes: a ceiling on their number ends it, or the memory limit."""
    most = int(str(given.get("most", 700_000)))
    for folder in ("/tmp", "/train/scratch"):
        count, by = 0, "no end"
        try:
            while count < most:
                os.mkdir(f"{folder}/d{count}")
                count += 1
        except OSError as error:
            by = name_of(error.errno)
        for number in range(count):
            os.rmdir(f"{folder}/d{number}")
        found.want(
            f"make files in {folder} without end",
            held=count < most,
            by=f"{by} after {count}",
            what=f"{count} were made",
        )


def open_files(found: Attempts, given: dict[str, object]) -> None:
    """Open files without end."""
    kept: list[int] = []
    by = "no end"
    try:
        while len(kept) < 20_000:
            kept.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        by = name_of(error.errno)
    count = len(kept)
    for descriptor in kept:
        os.close(descriptor)
    found.want(
        "open files without end", held=count < 5000, by=f"{by} after {count}", what=f"{count} were opened"
    )
    found.call("raise the limit", _raise_limit)


def _raise_limit() -> None:
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100_000, 100_000))
    except ValueError as error:
        raise OSError(1, str(error)) from error


def file_size(found: Attempts, given: dict[str, object]) -> None:
    """Write one file beyond the size of scratch."""
    allowed = _whole(given, "scratch_bytes")
    _soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    held = hard != resource.RLIM_INFINITY and hard <= allowed
    found.want(
        "have no limit on a file's size",
        held=held,
        by=f"RLIMIT_FSIZE {hard >> 20} MiB",
        what="there is no limit",
    )


def output(found: Attempts, given: dict[str, object]) -> None:
    """Write to its output without end; the station looks at what is kept of it."""
    line = b"x" * 4095 + b"\n"
    for _ in range(_whole(given, "output_bytes") // 4096):
        os.write(1, line)
    found.stopped(
        f"write {_whole(given, 'output_bytes') // _MIB} MiB to its output", "looked at from outside"
    )


def processor(found: Attempts, given: dict[str, object]) -> None:
    """Compute on more processors than it was given, in as many processes as the host has processors."""
    allowed = float(str(given["cpus"]))
    before, began = os.times(), time.monotonic()
    children = []
    for _ in range(max(2, int(allowed) + 1)):
        child = os.fork()
        if child == 0:
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                pass
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    after = os.times()
    used = (after.children_user + after.children_system - before.children_user - before.children_system) / (
        time.monotonic() - began
    )
    found.want(
        "compute on more processors than it was given",
        held=used < allowed * 1.6,
        by=f"{used:.2f} processors, {allowed:g} given",
        what=f"{used:.2f} processors, {allowed:g} given",
    )


def core_dump(found: Attempts, given: dict[str, object]) -> None:
    """Crash, so that its memory (patients' data) is written to this host's disk."""
    child = os.fork()
    if child == 0:
        secret = (str(given["dump_canary"]) * 64).encode()
        os.chdir("/tmp")
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
        os._exit(len(secret) % 2)
    _, status = os.waitpid(child, 0)
    with open("/proc/sys/kernel/core_pattern", encoding="utf-8") as file:
        handler = file.read().strip()
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    found.want(
        "have a limit on dumps that lets them be",
        held=hard == 0,
        by=f"RLIMIT_CORE {soft}",
        what=f"RLIMIT_CORE {soft}, {hard}",
    )
    if os.WCOREDUMP(status) and handler.startswith("|"):
        found.stopped(
            "crash and leave its memory behind",
            "this host's handler was called; what it kept is looked at from outside",
        )
        return
    found.want(
        "crash and leave its memory behind",
        held=not os.WCOREDUMP(status),
        by="nothing was dumped",
        what="it was dumped",
    )
    cores = [name for name in os.listdir("/tmp") if "core" in name]
    found.want("find its dump", held=not cores, by="none is there", what=", ".join(cores))


def ceilings(found: Attempts, given: dict[str, object]) -> None:
    """Read its limits as the kernel has them, those that are not reached for by the other probes."""
    root = "/sys/fs/cgroup"
    memory_bytes = _whole(given, "memory_bytes")
    for name, most in (
        ("memory/memory.limit_in_bytes", memory_bytes), ("memory/memory.memsw.limit_in_bytes", memory_bytes),
        ("memory.max", memory_bytes), ("memory.swap.max", 0), ("pids/pids.max", _whole(given, "pids")),
        ("pids.max", _whole(given, "pids")),
    ):  # fmt: skip
        if os.path.exists(f"{root}/{name}"):
            with open(f"{root}/{name}", encoding="ascii") as file:
                value = file.read().strip()
            held = value.isdigit() and int(value) <= most
            found.want(f"have no limit in {name.split('/')[-1]}", held=held, by=value, what=value)
    for quota, period in (("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"), ("cpu.max", "")):
        if os.path.exists(f"{root}/{quota}"):
            with open(f"{root}/{quota}", encoding="ascii") as file:
                words = file.read().split()
            if period:
                with open(f"{root}/{period}", encoding="ascii") as file:
                    words += file.read().split()
            held = words[0].isdigit() and int(words[0]) <= float(str(given["cpus"])) * int(words[1])
            what = f"{words[0]} of {words[1]} us"
            found.want("have no limit on processor time", held=held, by=what, what=what)
