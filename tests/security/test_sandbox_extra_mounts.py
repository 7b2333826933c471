"""Attack: a train looks for mounts beside its own, and tries to make one."""

import pytest
from sandbox_kit import Station

pytestmark = pytest.mark.docker

CODE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
found = {"host": [], "tmpfs": {}, "made": []}
for line in open("/proc/self/mounts"):
    source, target, kind, options = line.split()[:4]
    if kind not in ("proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "tmpfs", "overlay"):
        found["host"].append([target, "ro" in options.split(",")])
    if kind == "tmpfs" and "rw" in options.split(","):
        found["tmpfs"][target] = [option for option in ("nosuid", "nodev", "noexec") if option in options.split(",")]
os.makedirs("/tmp/m", exist_ok=True)
for source, kind, flags in ((b"none", b"tmpfs", 0), (b"proc", b"proc", 0), (b"/train/data", b"", 4096), (b"/train/data", b"", 32)):
    if libc.mount(source, b"/tmp/m", kind, flags, None) == 0:
        found["made"].append(kind.decode())
found["unmounted"] = [p for p in ("/train/data", "/train/control", "/proc") if libc.umount2(p.encode(), 2) == 0]
found["own_root"] = os.path.exists("/train/data/datalist.json")
"""


def test_a_train_sees_its_two_mounts_and_makes_none(station: Station) -> None:
    with station.session() as session:
        found = station.find(session, CODE)
    assert isinstance(found, dict)
    assert all(read_only for _, read_only in found["host"])
    targets = {target for target, _ in found["host"]}
    of_the_engine = {
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/sbin/docker-init",
        "/usr/sbin/docker-init",
    }
    assert targets - of_the_engine == {"/train/control", "/train/data"}
    assert found["tmpfs"]["/tmp"] == ["nosuid", "nodev", "noexec"]
    assert found["tmpfs"]["/train/scratch"] == ["nosuid", "nodev", "noexec"]
    assert found["made"] == []
    assert found["unmounted"] == []
    assert found["own_root"] is True
