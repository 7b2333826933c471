"""Other people's files: the engine's sockets, the launcher's, other cohorts, other patients, the host's root."""

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator

from . import calls
from .attempts import Attempts, name_of, read_some

_ENGINES = (
    "/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock",
    "/run/crio/crio.sock", "/run/docker/metrics.sock", "/run/systemd/private", "/run/dbus/system_bus_socket",
)  # fmt: skip


def walk() -> Iterator[tuple[str, os.stat_result]]:
    """Yield every name in the container, without what the kernel makes up under /proc and /sys."""
    waiting = ["/"]
    while waiting:
        folder = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    yield entry.path, status
                    if stat.S_ISDIR(status.st_mode) and entry.path not in ("/proc", "/sys"):
                        waiting.append(entry.path)


def _connect(found: Attempts, path: str) -> None:
    tried = f"connect to {path}"
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(1.5)
            sock.connect(path)
            found.got(tried, "connected")
    except OSError as error:
        found.stopped(tried, name_of(error.errno))


def engine_socket(found: Attempts, given: dict[str, object]) -> None:
    """Reach the container engine, who is root on the host."""
    for path in sorted({*_ENGINES, str(given["engine_socket"])}):
        _connect(found, path)
    seen = sorted(path for path, status in walk() if stat.S_ISSOCK(status.st_mode))
    found.want("look for sockets anywhere", held=not seen, by="there is none", what=", ".join(seen))


def launcher_socket(found: Attempts, given: dict[str, object]) -> None:
    """Reach the launcher and the station's own programs."""
    folder = os.path.dirname(str(given["launcher_socket"]))
    for name in ("launcher.sock", "api.sock", "intake.sock"):
        _connect(found, f"{folder}/{name}")
        _connect(found, f"/train/control/../{name}")


def host_paths(found: Attempts, given: dict[str, object]) -> None:
    """Read a file of this host by its path, by links, by the kernel's own links, and by its handle."""
    path, canary = str(given["host_file"]), str(given["host_canary"]).encode()
    os.symlink(path, "/tmp/link")
    ways = {
        "by its path": path,
        "by a link in /tmp": "/tmp/link",
        "by /proc/1/root": "/proc/1/root" + path,
        "by /proc/self/root": "/proc/self/root" + path,
        "by /proc/1/cwd": "/proc/1/cwd" + "/.." * 12 + path,
        "above its mount": "/train/data" + "/.." * 12 + path,
    }
    for way, at in ways.items():
        tried = f"read a file of this host {way}"
        try:
            data = read_some(at, 256)
        except OSError as error:
            found.stopped(tried, name_of(error.errno))
        else:
            found.want(tried, held=canary not in data, by="another file is there", what="its secret was read")
    for name in (
        "/etc/shadow",
        "/etc/machine-id",
        "/var/lib/docker",
        "/root/.ssh",
        "/home",
        "/boot",
        "/lib/modules",
    ):
        found.want(
            f"look for {name}", held=not os.path.lexists(name), by="it is not there", what="it is there"
        )
    found.call("open the root of this host by its handle (open_by_handle_at)", _by_handle)


def _by_handle() -> int:
    """As "shocker" did in 2014: a file handle of inode 2, the root of most file systems, on a mount of the host."""
    mount = os.open("/train/data", os.O_RDONLY)
    handle = struct.pack("=Ii", 8, 1) + struct.pack("=Q", 2)
    return calls.call("open_by_handle_at", mount, handle, os.O_RDONLY)


def _names(found: Attempts, what: str, name: str, canary: str) -> None:
    """Look for a name and for what the file under it holds, everywhere."""
    seen = sorted(path for path, _ in walk() if os.path.basename(path) == name)
    found.want(f"look for {what} by its name", held=not seen, by="it is nowhere", what=", ".join(seen))
    for folder in ("/train/data", "/train/control", "/train"):
        for up in ("..", "../..", "../../.."):
            at = f"{folder}/{up}/{name}"
            tried = f"read {what} at {at}"
            try:
                data = read_some(at, 256)
            except OSError as error:
                found.stopped(tried, name_of(error.errno))
            else:
                found.want(
                    tried, held=canary.encode() not in data, by="another file is there", what="it was read"
                )


def other_cohort(found: Attempts, given: dict[str, object]) -> None:
    """Find the cohort of another train, which lies beside this one's on the host."""
    listed = sorted(os.listdir("/train/data/.."))
    own = listed == ["control", "data", "scratch"]
    found.want(
        "list the folder above the cohort", held=own, by="only its own are there", what=", ".join(listed)
    )
    _names(found, "another train's cohort", str(given["cohort_name"]), str(given["cohort_canary"]))
    tried = "read another train's cohort by its path on the host"
    try:
        read_some(str(given["cohort_file"]))
    except OSError as error:
        found.stopped(tried, name_of(error.errno))
    else:
        found.got(tried, "it was read")


def other_patient(found: Attempts, given: dict[str, object]) -> None:
    """Find another patient, as a `map` train would that is given one of them."""
    images = sorted(os.listdir("/train/data/images"))
    found.want("list the patients", held=len(images) == 1, by="one is there", what=", ".join(images))
    _names(found, "another patient", str(given["patient_name"]), str(given["patient_canary"]))


def cohort_written(found: Attempts, given: dict[str, object]) -> None:
    """Change the cohort: its files are everybody's to write, and only its mount stands in the way."""
    file = "/train/data/images/case-0001.bin"
    found.call("write into a file of the cohort", lambda: os.close(os.open(file, os.O_WRONLY)))
    found.call(
        "make a file in the cohort", lambda: os.close(os.open("/train/data/new", os.O_CREAT | os.O_WRONLY))
    )
    found.call("remove a file of the cohort", lambda: os.unlink(file))
    found.call("set the cohort's times", lambda: os.utime("/train/data", (0, 0)))


def control_socket(found: Attempts, given: dict[str, object]) -> None:
    """Take the control socket's place, or write beside it."""
    folder = "/train/control"
    found.call(
        "make a file in the control folder",
        lambda: os.close(os.open(f"{folder}/x", os.O_CREAT | os.O_WRONLY)),
    )
    found.call("remove the control socket", lambda: os.unlink(f"{folder}/train.sock"))
    found.call(
        "put another socket in its place", lambda: socket.socket(socket.AF_UNIX).bind(f"{folder}/train.sock")
    )
    found.call("rename the control folder", lambda: os.rename(folder, "/train/was-control"))
    found.call("put a link in its place", lambda: os.symlink("/tmp", f"{folder}/train.sock"))
    found.call("open the control folder to all", lambda: os.chmod(folder, 0o777))


def second_connection(found: Attempts, given: dict[str, object]) -> None:
    """Connect to the control socket once more, from another process than the one that did."""
    for at in ("/train/control/train.sock", "/train/control/../control/train.sock"):
        _connect(found, at)


def write_outside(found: Attempts, given: dict[str, object]) -> None:
    """Write anywhere but in its own memory, or run what it wrote there."""
    # Message queues are memory too, of its own namespace and within its limit.
    own = ("/tmp", "/train/scratch", "/dev/shm", "/dev/mqueue")
    folders = [path for path, status in walk() if stat.S_ISDIR(status.st_mode)] + ["/"]
    refused: dict[str, int] = {}
    written = []
    for folder in folders:
        at = os.path.join(folder, "pht-was-here")
        try:
            os.close(os.open(at, os.O_CREAT | os.O_WRONLY))
            os.unlink(at)
        except OSError as error:
            refused[name_of(error.errno)] = refused.get(name_of(error.errno), 0) + 1
        else:
            if not folder.startswith(own):
                written.append(folder)
    by = ", ".join(f"{count} times {what}" for what, count in sorted(refused.items()))
    found.want(
        f"make a file in each of {len(folders)} folders", held=not written, by=by, what=", ".join(written)
    )
    changed = (
        "/etc/passwd",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/etc/hostname",
        "/opt/train/bin/python",
        "/opt/bait/marker",
    )
    for name in changed:
        found.call(f"write to {name}", lambda n=name: os.close(os.open(n, os.O_WRONLY)))  # type: ignore[misc]


def run_written(found: Attempts, given: dict[str, object]) -> None:
    """Run a program that it wrote itself, or map one into its memory."""
    with open("/opt/bait/become-root", "rb") as file:
        program = file.read()
    for folder in ("/tmp", "/train/scratch", "/dev/shm"):
        at = f"{folder}/program"
        with open(at, "wb") as file:
            file.write(program)
        os.chmod(at, 0o4755)
        found.call(f"run a program in {folder}", lambda a=at: os.posix_spawn(a, [a], {}))  # type: ignore[misc]
        os.unlink(at)


def mounted_below(found: Attempts, given: dict[str, object]) -> None:
    """See what this host mounted below the folder that is the cohort."""
    inside = os.listdir("/train/data/below")
    found.want(
        "see what is mounted below its cohort", held=not inside, by="nothing is seen", what=", ".join(inside)
    )
