"""Attack: a train looks at the host and changes it by way of /proc and /sys."""

import pytest
from sandbox_kit import Station

pytestmark = pytest.mark.docker

CODE = """
import os
found = {"processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()), "read": [], "wrote": []}
for name in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/1/root/etc/shadow",
             "/etc/shadow", "/dev/kmsg", "/dev/mem", "/dev/vda", "/dev/sda", "/dev/kvm", "/dev/fuse"):
    try:
        with open(name, "rb") as file:
            if file.read(16):
                found["read"].append(name)
    except OSError:
        pass
for name in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname",
             "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max", "/sys/kernel/uevent_helper",
             "/proc/self/oom_score_adj"):
    try:
        with open(name, "w") as file:
            file.write("-900" if name.endswith("adj") else "x")
        found["wrote"].append(name)
    except OSError:
        pass
found["devices"] = sorted(os.listdir("/dev"))
"""


def test_a_train_sees_its_own_processes_and_no_device(station: Station) -> None:
    with station.session() as session:
        found = station.find(session, CODE)
    assert isinstance(found, dict)
    assert len(found["processes"]) <= 4
    assert found["processes"][0] == 1
    assert found["read"] == []
    assert found["wrote"] == []
    assert set(found["devices"]) <= {
        "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    }  # fmt: skip
