"""Become more than it is: users, capabilities, namespaces, mounts, other processes."""

import ctypes
import os
import re
import struct

from . import calls
from .attempts import Attempts, name_of, read_some

_CLONE_FLAGS = {
    "user": 0x10000000, "mount": 0x00020000, "network": 0x40000000, "process": 0x20000000, "control group": 0x02000000,
    "time": 0x00000080,
}  # fmt: skip


def _status() -> dict[str, str]:
    with open("/proc/self/status", encoding="ascii") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def users(found: Attempts, given: dict[str, object]) -> None:
    """Be root, or another user, or in a group of the host."""
    ids = {*os.getresuid(), *os.getresgid()}
    known = ", ".join(map(str, sorted(ids)))
    fresh = ids == {int(str(given["uid"]))} and 0 not in ids
    found.want(
        "be somebody else than the fresh user it was given",
        held=fresh,
        by=f"it is {known}",
        what=f"it is {known}",
    )
    extra = set(os.getgroups()) - ids
    found.want(
        "be in a group",
        held=not extra,
        by="it is in none but its own",
        what=", ".join(map(str, sorted(extra))),
    )
    found.call("become root (setuid)", lambda: os.setuid(0))
    found.call("become root (setresuid)", lambda: os.setresuid(0, 0, 0))
    found.call("join root's group (setgroups)", lambda: os.setgroups([0]))
    found.call("join root's group (setgid)", lambda: os.setgid(0))
    found.call("read a file of root's", lambda: read_some("/opt/bait/root-only"))
    found.call("read a file of root's group", lambda: read_some("/opt/bait/group-only"))
    found.call("give a file to root", lambda: os.chown(os.open("/tmp/mine", os.O_CREAT | os.O_RDWR), 0, 0))


def set_user_id(found: Attempts, given: dict[str, object]) -> None:
    """Run a program that is set-user-id to root, which the train's image brings along."""
    child = os.posix_spawn("/opt/bait/become-root", ["become-root"], {})
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    found.want(
        "run a program that is set-user-id to root",
        held=code == 0,
        by="it ran as the train's own user",
        what="it ran as root",
    )
    privileges = _status()["NoNewPrivs"]
    found.want(
        "gain privileges by running a program",
        held=privileges == "1",
        by="no_new_privs is set",
        what="no_new_privs is not set",
    )
    kept = calls.libc().prctl(38, 0, 0, 0, 0)
    found.want(
        "take no_new_privs back", held=kept < 0, by=name_of(ctypes.get_errno()), what="it was taken back"
    )


def capabilities(found: Attempts, given: dict[str, object]) -> None:
    """Have or gain capabilities."""
    status = _status()
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        found.want(
            f"have capabilities ({name})", held=int(status[name], 16) == 0, by="none", what=status[name]
        )
    libc = calls.libc()
    header, wanted = (
        ctypes.create_string_buffer(struct.pack("=II", 0x20080522, 0)),
        ctypes.create_string_buffer(b"\xff" * 24),
    )
    refused = libc.capset(header, wanted) < 0
    found.want(
        "take every capability (capset)", held=refused, by=name_of(ctypes.get_errno()), what="they were given"
    )
    refused = libc.prctl(47, 2, 21, 0, 0) < 0
    found.want(
        "raise an ambient capability", held=refused, by=name_of(ctypes.get_errno()), what="it was raised"
    )


def seccomp(found: Attempts, given: dict[str, object]) -> None:
    """Run without the engine's filter of system calls."""
    mode = _status()["Seccomp"]
    # gVisor answers every call itself, in a program that runs under a filter of its own.
    own_kernel = "gvisor" in os.uname().version.lower() or given.get("own_kernel") is True
    if own_kernel:
        found.skipped("run without a filter", "every call is answered by the runtime's own kernel")
        return
    found.want(
        "run without a filter", held=mode == "2", by="a filter is in force (mode 2)", what=f"mode {mode}"
    )
    refused = {
        name: _refused(name) for name in ("keyctl", "kexec_load", "bpf", "open_by_handle_at", "swapon")
    }
    found.want(
        "call what a filter refuses", held=all(refused.values()), by="each was refused", what=str(refused)
    )


def _refused(name: str) -> bool:
    try:
        calls.call(name, 0, 0, 0, 0)
    except OSError as error:
        return error.errno in (1, 13, 38)
    return False


def namespaces(found: Attempts, given: dict[str, object]) -> None:
    """Make namespaces, in which it would be root, or enter others."""
    for name, flag in _CLONE_FLAGS.items():
        found.call(f"make a {name} namespace (unshare)", lambda f=flag: calls.call("unshare", f))  # type: ignore[misc]
    arguments = ctypes.create_string_buffer(struct.pack("=QQQQQQQQ", 0x10000000, 0, 0, 0, 17, 0, 0, 0))
    try:
        child = calls.call("clone3", arguments, 64)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        found.got("make a user namespace (clone3)")
    except OSError as error:
        found.stopped("make a user namespace (clone3)", name_of(error.errno))
    for name in ("net", "mnt", "pid"):
        at = f"/proc/{int(str(given['host_pid']))}/ns/{name}"
        found.call(f"enter this host's {name} namespace (setns)", lambda a=at: _enter(a))  # type: ignore[misc]
        found.call(
            f"enter process 1's {name} namespace (setns)",
            lambda n=name: calls.call("setns", os.open(f"/proc/1/ns/{n}", os.O_RDONLY), 0),  # type: ignore[misc]
        )


def _enter(path: str) -> int:
    return calls.call("setns", os.open(path, os.O_RDONLY), 0)


def mounts(found: Attempts, given: dict[str, object]) -> None:
    """Mount, in the old way and the new; change what is mounted; leave the root."""
    os.makedirs("/tmp/m", exist_ok=True)
    at = b"/tmp/m"
    for what, arguments in {
        "mount a tmpfs": (b"none", at, b"tmpfs", 0, None),
        "mount /proc anew": (b"proc", at, b"proc", 0, None),
        "mount the control groups": (b"none", at, b"cgroup2", 0, None),
        "mount an overlay": (b"none", at, b"overlay", 0, b"lowerdir=/opt,upperdir=/tmp,workdir=/tmp"),
        "bind the cohort elsewhere": (b"/train/data", at, b"", 4096, None),
        "make the cohort writable (remount)": (b"none", b"/train/data", b"", 4096 | 32, None),
        "make the root writable (remount)": (b"none", b"/", b"", 32, None),
        "make /proc/sys writable (remount)": (b"none", b"/proc/sys", b"", 4096 | 32, None),
        "share mounts with this host": (b"none", b"/", b"", (1 << 20) | 16384, None),
    }.items():
        found.call(what, lambda a=arguments: calls.call("mount", *a))  # type: ignore[misc]
    found.call("open a file system (fsopen)", lambda: calls.call("fsopen", b"tmpfs", 0))
    found.call("copy a mount (open_tree)", lambda: calls.call("open_tree", -100, b"/train/data", 1))
    found.call(
        "move a mount (move_mount)", lambda: calls.call("move_mount", -100, b"/train/data", -100, at, 0)
    )
    change = ctypes.create_string_buffer(struct.pack("=QQQQ", 0, 1, 0, 0))
    found.call(
        "make the cohort writable (mount_setattr)",
        lambda: calls.call("mount_setattr", -100, b"/train/data", 0, change, 32),
    )
    for target in ("/train/data", "/train/control", "/proc", "/proc/kcore", "/sys/firmware"):
        found.call(f"unmount {target}", lambda t=target: calls.call("umount2", t.encode(), 2))  # type: ignore[misc]
    found.call("change the root (pivot_root)", lambda: calls.call("pivot_root", at, at))
    found.call("change the root (chroot)", lambda: os.chroot("/tmp/m"))


# The container's random id, as Podman (under version 1 of control groups) and gVisor show it.
_MADE_UP_NAME = re.compile(
    r"(?:/libpod_parent|/machine\.slice)/libpod-[0-9a-f]{64}(?:\.scope)?|/[0-9a-f]{64}"
)


def _of_the_engine() -> set[str]:
    """The list of users that Podman writes for a container: it lies in the container's own folder of the engine."""
    found = set()
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            _id, _parent, _device, inside, target = line.split()[:5]
            if target in {"/etc/passwd", "/etc/group"} and inside.endswith(f"/userdata/{target[5:]}"):
                found.add(target)
    return found


def seen_mounts(found: Attempts, given: dict[str, object]) -> None:
    """Look at what is mounted: two folders of the host, read-only, and nothing writable but memory."""
    expected = {"/train/data", "/train/control", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/sbin/docker-init",
                "/usr/sbin/docker-init", "/run/.containerenv", "/dev/init", "/run/podman-init"}  # fmt: skip
    made_up = {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "tmpfs", "overlay", "9p"}
    host, writable = [], []
    with open("/proc/self/mounts", encoding="utf-8") as file:
        for line in file:
            _source, target, kind, options = line.split()[:4]
            if kind not in made_up and target != "/":
                host.append(target)
            if "rw" in options.split(",") and kind not in {
                "proc",
                "devpts",
                "mqueue",
                "cgroup",
                "cgroup2",
                "tmpfs",
            }:
                writable.append(target)
            if kind in {"cgroup", "cgroup2", "sysfs"} and "rw" in options.split(","):
                writable.append(target)
    extra = sorted(set(host) - expected - _of_the_engine())
    found.want(
        "look for folders of this host",
        held=not extra,
        by="its cohort and its control folder",
        what=", ".join(extra),
    )
    found.want(
        "look for a disk to write to",
        held=not writable,
        by="none is writable",
        what=", ".join(sorted(writable)),
    )


def other_processes(found: Attempts, given: dict[str, object]) -> None:
    """Look into, stop or take descriptors of processes of this host."""
    pid = int(str(given["host_pid"]))
    found.call(f"attach to process {pid} of this host (ptrace)", lambda: calls.call("ptrace", 16, pid, 0, 0))
    found.call(f"seize process {pid} of this host (ptrace)", lambda: calls.call("ptrace", 0x4206, pid, 0, 0))
    buffer = ctypes.create_string_buffer(64)
    vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(buffer), 64))
    far = ctypes.create_string_buffer(struct.pack("=QQ", int(str(given["host_address"])), 64))
    found.call(
        "read its memory (process_vm_readv)",
        lambda: calls.call("process_vm_readv", pid, vector, 1, far, 1, 0),
    )
    found.call("read its memory (/proc/pid/mem)", lambda: read_some(f"/proc/{pid}/mem"))
    found.call("send it a signal", lambda: os.kill(pid, 0))
    found.call("open it (pidfd_open)", lambda: calls.call("pidfd_open", pid, 0))
    found.call("take one of its descriptors (pidfd_getfd)", lambda: _take_descriptor(pid))
    found.call("compare itself with it (kcmp)", lambda: calls.call("kcmp", os.getpid(), pid, 0, 0, 0))
    found.call("send its group a signal", lambda: os.killpg(pid, 0))


def _take_descriptor(pid: int) -> int:
    return calls.call("pidfd_getfd", calls.call("pidfd_open", pid, 0), 0, 0)


def shared_memory(found: Attempts, given: dict[str, object]) -> None:
    """Read memory that this host's programs share: System V segments, message queues, files in /dev/shm."""
    libc = calls.libc()
    segment = libc.shmget(int(str(given["shm_key"])), 0, 0)
    found.want(
        "open a shared memory segment of this host",
        held=segment < 0,
        by=name_of(ctypes.get_errno()),
        what="it was opened",
    )
    for name in ("/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg"):
        with open(name, encoding="ascii") as file:
            lines = len(file.read().splitlines()) - 1
        found.want(
            f"look for segments in {name}", held=lines <= 0, by="none is there", what=f"{lines} are there"
        )
    at = f"/dev/shm/{given['shm_name']}"
    found.call("read a file in this host's /dev/shm", lambda: read_some(at))


def control_groups(found: Attempts, given: dict[str, object]) -> None:
    """Change its limits, leave its control group, or have this host's kernel run a program (release_agent)."""
    root = "/sys/fs/cgroup"
    version_2 = os.path.exists(f"{root}/cgroup.controllers")
    folders = (
        [root]
        if version_2
        else sorted(entry.path for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))
    )
    names = ("cgroup.procs", "notify_on_release", "release_agent", "memory.limit_in_bytes", "memory.max", "pids.max",
             "cpu.cfs_quota_us", "cpu.max", "devices.allow", "cgroup.subtree_control")  # fmt: skip
    for folder in folders:
        for name in names:
            at = f"{folder}/{name}"
            if os.path.lexists(at):
                found.call(f"write to {at}", lambda a=at: os.close(os.open(a, os.O_WRONLY)))  # type: ignore[misc]
        found.call(f"make a control group in {folder}", lambda f=folder: os.mkdir(f"{f}/pht"))  # type: ignore[misc]
    with open("/proc/self/cgroup", encoding="ascii") as file:
        paths = {line.strip().split(":", 2)[2] for line in file}
    # Without a namespace of its own it sees its own name, which an engine made up: that says nothing of this host.
    named = sorted(path for path in paths if path != "/" and not _MADE_UP_NAME.fullmatch(path))
    found.want(
        "see where in this host's tree it is",
        held=not named,
        by="it sees itself at the root" if paths <= {"/"} else "it sees the name that the engine gave it",
        what=", ".join(named)[:120],
    )
    if version_2:
        found.skipped("set a release_agent", "cgroup v2 has none")
    try:
        with open(f"{root}/memory/memory.oom_control", encoding="ascii") as file:
            held = "oom_kill_disable 0" in file.read()
        found.want(
            "not be killed when its memory is used up",
            held=held,
            by="oom_kill_disable 0",
            what="oom_kill_disable 1",
        )
    except OSError:
        found.skipped("not be killed when its memory is used up", "cgroup v2 always kills")
