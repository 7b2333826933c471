"""Attack: a train tries to become more than it is: capabilities, set-user-id programs, namespaces, forbidden calls."""

import pytest
from sandbox_kit import Station

from station.sandbox.spec import FIRST_UID, UID_COUNT

pytestmark = pytest.mark.docker

CODE = """
import ctypes, os, subprocess
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
found = {name: status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Groups")}
found["ids"] = [os.getuid(), os.geteuid(), os.getgid(), os.getegid()]
libc = ctypes.CDLL(None, use_errno=True)
done = []
for name, call in {
    "setuid": lambda: libc.setuid(0),
    "setgroups": lambda: libc.setgroups(1, (ctypes.c_int * 1)(0)),
    "unshare-user": lambda: libc.unshare(0x10000000),
    "unshare-net": lambda: libc.unshare(0x40000000),
    "chroot": lambda: libc.chroot(b"/tmp"),
    "keyctl": lambda: libc.syscall(250, 0, -3, 1),
    "bpf": lambda: libc.syscall(321, 0, 0, 0),
    "perf": lambda: libc.syscall(298, (ctypes.c_char * 128)(), 0, -1, -1, 0),
    "userfaultfd": lambda: libc.syscall(323, 0),
    "mknod": lambda: libc.mknod(b"/tmp/device", 0o60666, 0x0800),
    "reboot": lambda: libc.reboot(0),
}.items():
    if call() >= 0:
        done.append(name)
found["done"] = done
program = subprocess.run(["/bin/su", "-c", "id"], capture_output=True, stdin=subprocess.DEVNULL)
found["su"] = program.returncode
found["suid_works"] = b"uid=0" in program.stdout
"""


def test_a_train_gains_nothing(station: Station) -> None:
    with station.session() as session:
        found = station.find(session, CODE)
    assert isinstance(found, dict)
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"
    assert found["Groups"] in ("", str(found["ids"][0]))
    assert len(set(found["ids"])) == 1
    assert FIRST_UID <= found["ids"][0] < FIRST_UID + UID_COUNT
    assert found["done"] == []
    assert not found["suid_works"]


def test_every_container_is_another_user(station: Station) -> None:
    ids = set()
    for _ in range(2):
        with station.session() as session:
            ids.add(station.find(session, "import os; found = os.getuid()"))
    assert len(ids) == 2


def test_two_trains_share_no_memory(station: Station) -> None:
    code = "open('/dev/shm/left', 'w').write('secret'); open('/tmp/left', 'w').write('secret')"
    look = "import os; found = [os.listdir('/dev/shm'), os.listdir('/tmp'), os.listdir('/train/scratch')]"
    with station.session() as one, station.session() as other:
        station.ask(one, code)
        assert station.find(other, look) == [[], [], []]
