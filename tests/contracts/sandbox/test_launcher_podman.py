"""What Podman would give a train by itself, and does not: seen from inside."""

import socket

import pytest
from engine_kit import GIVEN
from sandbox_kit import Station

from station.sandbox.spec import MIB

pytestmark = [
    pytest.mark.docker,
    pytest.mark.parametrize("engine", ["given" if GIVEN else "podman"], indirect=True),
]

LOOK = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
calls = {
    "user namespace": lambda: libc.unshare(0x10000000),
    "network namespace": lambda: libc.unshare(0x40000000),
    "clone": lambda: libc.syscall(56, 0x10000000, 0, 0, 0, 0),
    "keys": lambda: libc.syscall(250, 0, -3, 1),
    "io_uring": lambda: libc.syscall(425, 1, 0),
    "bpf": lambda: libc.syscall(321, 0, 0, 0),
    "ptrace": lambda: libc.ptrace(0, 0, 0, 0),
    "mount": lambda: libc.mount(b"x", b"/tmp", b"tmpfs", 0, 0),
}
found = {"allowed": [name for name, call in calls.items() if call() >= 0], "sockets": []}
for family in range(1, 46):
    try:
        socket.socket(family, socket.SOCK_DGRAM).close()
        found["sockets"].append(family)
    except OSError:
        pass
for name in ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname"):
    found[name] = open(name).read()
found["variables"] = sorted(os.environ)
found["owners"] = [os.stat(path).st_uid == os.getuid() for path in ("/tmp", "/train/scratch")]
found["sizes"] = [os.statvfs(path).f_blocks * os.statvfs(path).f_frsize for path in ("/tmp", "/train/scratch", "/dev/shm")]
"""


def test_what_podman_adds_by_itself_is_covered(station: Station) -> None:
    with station.session() as session:
        found = station.find(session, LOOK)
    assert isinstance(found, dict)
    assert found["allowed"] == []
    assert set(found["sockets"]) <= {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}
    assert found["/etc/hosts"].split() == ["127.0.0.1", "localhost", "train", "::1", "localhost"]
    assert found["/etc/resolv.conf"].split() == ["nameserver", "127.0.0.1", "search", "."]
    assert found["/etc/hostname"].strip() == "train"
    assert not [name for name in found["variables"] if "proxy" in name.lower()]
    assert found["owners"] == [True, True]
    assert found["sizes"] == [32 * MIB] * 3
