"""Attack: a train reaches the hypervisor and the host by vsock, which no network namespace holds."""

import errno
import json

import pytest
from selftest_kit import Attacked

from station.sandbox.engine.seccomp import listed_calls, profile

pytestmark = pytest.mark.docker


def test_no_vsock_socket_is_given(attacked: Attacked) -> None:
    line = attacked.stopped("vsock", "EPERM|ENOSYS", "nobody came")
    assert not [each for each in line.attempts if "no answer" in each.what], (
        "each must be refused, not unanswered"
    )
    (pair,) = [each.what for each in line.attempts if "pair" in each.tried]
    assert pair.startswith(("EPERM", "ENOSYS")), "refused before the kernel looks for vsock"


def test_the_filter_lists_nothing_that_reaches_past_it() -> None:
    forbidden = {
        "add_key", "bpf", "clone3", "io_uring_setup", "kexec_load", "keyctl", "mount", "open_by_handle_at", "perf_event_open",
        "pivot_root", "process_vm_readv", "ptrace", "setns", "socket",
        "socketpair", "unshare", "userfaultfd",
    }  # fmt: skip
    assert not forbidden & set(listed_calls())
    rules = json.loads(profile())["syscalls"]
    families = {rule["args"][0]["value"] for rule in rules if rule["names"] == ["socket"]}
    assert families == {1, 2, 10, 16}
    assert [rule["args"][0]["value"] for rule in rules if rule["names"] == ["socketpair"]] == [1]
    whole = json.loads(profile())
    assert (whole["defaultAction"], whole["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", errno.ENOSYS)
