"""One contract for what a container is, held under every engine: each restriction is tried from inside, and seen from the host.

Where gVisor runs the train, its own kernel takes the place of the host's seccomp filter. Where a runtime takes no ceiling on inodes (gVisor,
Podman) their number is bounded by the container's memory, in which they lie.
"""

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_kit import ROOM, Engine
from sandbox_kit import Station

from station.sandbox import unix
from station.sandbox.engine.procfs import view_of
from station.sandbox.image.rewriting import read_image
from station.sandbox.session import TrainSession
from station.sandbox.spec import MIB, ExitClass, TrainFailure, TrainReply, TrainStartError

pytestmark = pytest.mark.docker

GVISOR = "docker-gvisor"
PIDS = 48


@pytest.fixture(scope="module")
def probe(station: Station) -> Iterator[TrainSession]:
    """One container per engine for whatever does no harm."""
    with station.session(cpus=0.5, pids=PIDS) as session:
        yield session


def test_there_is_no_network(station: Station, probe: TrainSession) -> None:
    code = """
import errno, socket
found = {"interfaces": [name for _, name in socket.if_nameindex()], "reached": []}
for family, address in ((socket.AF_INET, ("192.0.2.1", 53)), (socket.AF_INET, ("8.8.8.8", 443)), (socket.AF_INET6, ("2001:db8::1", 53))):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            with socket.socket(family, kind) as tried:
                tried.settimeout(20)
                tried.connect(address)
                tried.send(b"x")
                found["reached"].append(address)
        except OSError:
            pass
try:
    found["reached"].append(socket.getaddrinfo("example.com", 80))
except OSError:
    pass
"""
    assert station.find(probe, code) == {"interfaces": ["lo"], "reached": []}


def test_nothing_can_be_written_but_its_own_memory(station: Station, probe: TrainSession) -> None:
    code = """
import os
found = []
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys")]
    try:
        with open(os.path.join(folder, "written"), "w") as file:
            file.write("x")
        os.unlink(os.path.join(folder, "written"))
        found.append(folder)
    except OSError:
        pass
"""
    assert set(station.find(probe, code)) == {"/tmp", "/train/scratch", "/dev/shm"}  # type: ignore[call-overload]


def test_its_memory_runs_no_programs_and_honours_no_set_uid(station: Station, probe: TrainSession) -> None:
    code = """
import os, shutil, subprocess
found = []
for folder in ("/tmp", "/train/scratch", "/dev/shm"):
    path = os.path.join(folder, "program")
    shutil.copy("/bin/true", path)
    os.chmod(path, 0o4755)
    try:
        subprocess.run([path])
        found.append(folder)
    except OSError:
        pass
    os.unlink(path)
"""
    assert station.find(probe, code) == []


def test_its_user_is_fresh_and_nobodys(station: Station, probe: TrainSession) -> None:
    code = "import os; found = [*os.getresuid(), *os.getresgid(), *os.getgroups()]"
    users = set(station.find(probe, code))  # type: ignore[call-overload]
    (user,) = users
    assert user >= 1000
    with station.session(memory_bytes=256 * MIB) as other:
        assert users.isdisjoint(station.find(other, code))  # type: ignore[arg-type]


def test_it_has_no_capabilities_and_gains_none(station: Station, probe: TrainSession) -> None:
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
lines = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
found = {
    "held": [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(lines.get(name, "0"), 16)],
    "no new privileges": libc.prctl(39, 0, 0, 0, 0),
    "became root": libc.setresuid(0, 0, 0) == 0,
}
"""
    assert station.find(probe, code) == {"held": [], "no new privileges": 1, "became root": False}


def test_the_hosts_kernel_is_filtered_or_not_there(
    station: Station, engine: Engine, probe: TrainSession
) -> None:
    code = """
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
mode = [line.split()[1] for line in open("/proc/self/status") if line.startswith("Seccomp:")]
added = libc.syscall(248, b"user", b"mine", b"x", 1, -3)  # add_key
found = {"mode": mode, "release": os.uname().release, "user namespace": libc.unshare(0x10000000) == 0,
         "keyring": added >= 0, "mount": libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0}
"""
    found: Any = station.find(probe, code)
    assert not found["keyring"]
    assert not found["mount"]
    if engine.name == GVISOR:
        # A user namespace there is one of gVisor's own kernel.
        assert found["release"] != os.uname().release
    else:
        assert found["mode"] == ["2"]
        assert not found["user namespace"]


def test_there_are_no_devices(station: Station, probe: TrainSession) -> None:
    code = """
import os, stat
opened = []
for folder, folders, files in os.walk("/dev"):
    for name in files:
        path = os.path.join(folder, name)
        mode = os.lstat(path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            try:
                os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
                opened.append(path)
            except OSError:
                pass
made = []
for kind, major, minor in ((stat.S_IFCHR, 1, 1), (stat.S_IFBLK, 254, 0), (stat.S_IFCHR, 10, 200)):
    for folder in ("/tmp", "/train/scratch", "/dev/shm"):
        try:
            os.mknod(folder + "/node", kind | 0o600, os.makedev(major, minor))
            os.close(os.open(folder + "/node", os.O_RDONLY | os.O_NONBLOCK))
            made.append((major, minor))
        except OSError:
            pass
found = {"opened": sorted(opened), "made": made}
"""
    found: Any = station.find(probe, code)
    assert found["made"] == []
    # Those that do nothing to the host. gVisor's fuse and tun are its own kernel's.
    plain = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts/ptmx", "fuse", "net/tun"}
    assert {path.removeprefix("/dev/") for path in found["opened"]} <= plain


def test_its_limits_stand(station: Station, probe: TrainSession) -> None:
    code = """
import os, resource
opened = []
try:
    while len(opened) < 5000:
        opened.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
found = {"opened": len(opened), "core": resource.getrlimit(resource.RLIMIT_CORE), "files": resource.getrlimit(resource.RLIMIT_NOFILE)}
for each in opened:
    os.close(each)
"""
    found: Any = station.find(probe, code)
    assert found["opened"] < 4096
    assert found["core"] == [0, 0]
    assert found["files"] == [4096, 4096]


def test_it_gets_the_processor_time_it_was_given(station: Station, probe: TrainSession) -> None:
    code = """
import os, time
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            pass
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
found = 1
"""
    before, began = processor_seconds(probe), time.monotonic()
    station.find(probe, code)
    spent = processor_seconds(probe) - before
    # Half a core; a period of 0.1 s may be spent ahead.
    assert spent <= 0.5 * (time.monotonic() - began) + 0.2
    assert spent > 0.05


def processor_seconds(session: TrainSession) -> float:
    """Return what a container's control group has used, as the host's kernel counts it."""
    container = session._started.container_id
    for folder in [*Path("/sys/fs/cgroup").glob("cpuacct/**/"), *Path("/sys/fs/cgroup").glob("*/**/")]:
        if container not in folder.name:
            continue
        if (folder / "cpuacct.usage").exists():
            return int((folder / "cpuacct.usage").read_text()) / 1e9
        if (folder / "cpu.stat").exists() and "usage_usec" in (folder / "cpu.stat").read_text():
            return int((folder / "cpu.stat").read_text().split()[1]) / 1e6
    raise AssertionError("the container has no control group")


def test_it_cannot_have_more_processes_than_it_was_given(station: Station) -> None:
    code = """
import os, signal
children = []
try:
    while len(children) < 400:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError:
    pass
found = len(children)
for child in children:
    os.kill(child, 9)
    os.waitpid(child, 0)
"""
    with station.session(pids=PIDS) as session:
        answer = station.ask(session, code + "\nmetrics['children'] = found")
        # gVisor ends as a whole where the host's kernel gives it no more threads.
        assert isinstance(answer, TrainFailure) or 0 < answer.metrics["children"] < PIDS  # type: ignore[operator]
    assert station.launcher.status(session.run_id).state == "absent"


def test_it_cannot_have_more_memory_than_it_was_given(station: Station) -> None:
    with station.session(memory_bytes=192 * MIB) as session:
        answer = station.ask(session, "import time\nkept['x'] = bytearray(b'x') * (512 << 20)")
        assert isinstance(answer, TrainFailure)
        assert answer.session_ended
        assert answer.exit_class is ExitClass.OUT_OF_MEMORY


def test_its_scratch_has_a_ceiling(station: Station, probe: TrainSession) -> None:
    code = """
import errno, os
found = {}
for folder in ("/train/scratch", "/tmp", "/dev/shm"):
    written = 0
    try:
        with open(folder + "/large", "wb", buffering=0) as file:
            while written < 200 << 20:
                written += file.write(bytes(1 << 20))
    except OSError as error:
        found[folder] = errno.errorcode[error.errno]
    os.unlink(folder + "/large")
"""
    found: Any = station.find(probe, code)
    assert set(found) == {"/train/scratch", "/tmp", "/dev/shm"}
    assert set(found.values()) <= {"ENOSPC", "EFBIG"}


def test_its_scratch_counts_as_its_memory(station: Station) -> None:
    code = "open('/train/scratch/large', 'wb').write(bytes(1 << 20) * 300); metrics['a'] = 1"
    with station.session(memory_bytes=192 * MIB, scratch_bytes=512 * MIB) as session:
        answer = station.ask(session, code)
        assert isinstance(answer, TrainFailure)
        assert answer.session_ended


def test_its_files_are_counted_or_lie_in_its_memory(station: Station, engine: Engine) -> None:
    code = """
import os
made = 0
try:
    while made < 100000:
        os.close(os.open(f"/train/scratch/{made}", os.O_CREAT | os.O_WRONLY))
        made += 1
except OSError:
    pass
metrics["made"] = made
"""
    bounded = engine.name in {"docker", "docker-containerd"}
    with station.session(memory_bytes=(256 if bounded else 96) * MIB) as session:
        answer = station.ask(session, code, timeout_s=120)
        if bounded:
            assert isinstance(answer, TrainReply)
            assert answer.metrics["made"] < 65536  # type: ignore[operator]
        else:
            assert isinstance(answer, TrainFailure)
            assert answer.session_ended


def test_its_log_has_a_ceiling_on_the_hosts_disk(station: Station) -> None:
    code = "import sys\nfor _ in range(96): sys.stdout.write('x' * 65535 + '\\n')\nsys.stdout.flush()"
    with station.session() as session:
        answer = station.ask(session, code + "\nprint('THE', 'END', flush=True)", timeout_s=120)
        assert isinstance(answer, TrainReply)
        deadline, pause = time.monotonic() + 60, threading.Event()
        while "THE END" not in session.logs():
            assert time.monotonic() < deadline
            pause.wait(0.05)
        written = log_bytes(session._started.container_id)
        assert 0 < written < 3.5 * MIB
        assert len(session.logs()) <= 64 * 1024


def log_bytes(container: str) -> int:
    """Return what the engine keeps of a container's output."""
    found = [*Path("/var/lib/docker/containers").glob(f"{container}/*.log*")]
    found += ROOM.glob(f"*/containers/{container}/*.log*")
    found += ROOM.glob(f"*/**/overlay-containers/{container}/userdata/ctr.log*")
    assert found
    return sum(each.stat().st_size for each in found)


def test_its_wall_clock_ends_it(station: Station) -> None:
    try:
        with station.session(wall_clock_s=2) as session:
            answer = station.ask(session, "import time; time.sleep(600)", timeout_s=300)
            assert isinstance(answer, TrainFailure)
            status = station.launcher.wait(session.run_id, 60)
            assert (status.state, status.timed_out) == ("exited", True)
    except TrainStartError as error:  # a busy machine: the two seconds were over before its hello
        answer = error.failure
    assert answer.exit_class is ExitClass.TIMEOUT


def test_it_sees_its_two_folders_and_nothing_else_of_the_host(station: Station, probe: TrainSession) -> None:
    code = """
import os
mounts = [line.split() for line in open("/proc/mounts")]
found = {"targets": sorted({each[1] for each in mounts}), "data": sorted(os.listdir("/train/data")),
         "writable": sorted({each[1] for each in mounts if "rw" in each[3].split(",")})}
"""
    found: Any = station.find(probe, code)
    assert found["data"] == ["datalist.json"]
    own = re.compile(
        r"/|/proc(/.*)?|/sys(/.*)?|/dev(/pts|/mqueue|/shm|/init)?|/tmp|/var/tmp|/run(/podman-init)?|/train/(data|control|scratch)"
        r"|/etc/(hostname|hosts|resolv\.conf|passwd|group)|/(usr/)?sbin/docker-init"
    )
    assert [each for each in found["targets"] if not own.fullmatch(each)] == []
    assert {"/", "/train/data", "/train/control", "/etc/hosts", "/var/tmp", "/run"}.isdisjoint(
        found["writable"]
    )


def test_an_image_has_the_id_that_was_known_before(station: Station, probe: TrainSession) -> None:
    made = read_image(station.store, station.config_digest)
    assert probe._started.image_id in {made.config_digest, made.manifest_digest}
    assert station.launcher.load_image(station.config_digest).image_id == probe._started.image_id


def test_the_peer_is_the_container_and_only_that(engine: Engine, probe: TrainSession) -> None:
    started, peer = probe._started, unix.peer(probe._connection)
    assert peer.is_in_cgroup_of(started.container_id)
    assert not peer.is_in_cgroup_of("0" * 64)
    assert not unix.Peer(os.getpid(), peer.uid).is_in_cgroup_of(started.container_id)
    assert view_of(os.getpid(), started.container_id) is None
    if engine.name == GVISOR:
        assert started.peer_uid is None
    else:
        assert peer.uid == started.peer_uid == started.uid
