"""The filter of system calls of a train's container: a closed list, the same under every engine and version of it. Pure.

The engine's own profile follows its version, and some of them give sockets that reach the hypervisor past every network namespace
(vsock), and io_uring, whose requests no filter sees. A train needs neither. What is not listed here is not there (ENOSYS): so
the C library does without a call that the filter's own library is too old to know. Where the engine is too old to say so (Docker 20.10)
it is EPERM. 64-bit calls only: the 32-bit ones have numbers of their own.
"""

from collections.abc import Mapping
from importlib import resources
from typing import Final

from pydantic import JsonValue

from policies.documents import canonical_json

_LISTED: Final = "seccomp_calls.txt"
# AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: each of a network namespace that holds nothing. AF_VSOCK is of none.
_FAMILIES: Final = (1, 2, 10, 16)
# Every CLONE_NEW* flag: namespaces are made by the engine.
_NAMESPACES: Final = 0x7E02_0080
_PERSONALITIES: Final = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFF_FFFF)
_ENOSYS: Final = 38
_ALLOW: Final = "SCMP_ACT_ALLOW"
_DEFAULT: Final[Mapping[str, JsonValue]] = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": _ENOSYS}


def _when(name: str, value: int, operator: str = "SCMP_CMP_EQ", second: int = 0) -> JsonValue:
    return {
        "names": [name],
        "action": _ALLOW,
        "args": [{"index": 0, "value": value, "valueTwo": second, "op": operator}],
    }


def listed_calls() -> tuple[str, ...]:
    """Return the calls that are allowed with any arguments."""
    text = resources.files("station.sandbox.engine").joinpath(_LISTED).read_text("ascii")
    return tuple(line for line in text.split() if not line.startswith("#"))


def _rules() -> list[JsonValue]:
    rules: list[JsonValue] = [{"names": list(listed_calls()), "action": _ALLOW, "args": []}]
    rules += [_when("socket", family) for family in _FAMILIES]
    # A pair runs its family's code in the kernel as well, and that of vsock's is the host's.
    rules.append(_when("socketpair", _FAMILIES[0]))
    rules += [_when("personality", value) for value in _PERSONALITIES]
    rules.append(_when("clone", _NAMESPACES, "SCMP_CMP_MASKED_EQ", 0))
    # Its flags lie in memory, which a filter cannot read: with ENOSYS the C library falls back to clone.
    rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS, "args": []})
    return rules


def profile() -> str:
    """Return the profile as Docker takes it, in its option ``seccomp=``."""
    return canonical_json({**_DEFAULT, "syscalls": _rules()}).decode()


def podman_profile() -> str:
    """Return the same as Podman takes it, as a file: it wants to be told the machines that the numbers of the calls are of."""
    machines: list[JsonValue] = [
        {"architecture": f"SCMP_ARCH_{each}", "subArchitectures": []} for each in ("X86_64", "AARCH64")
    ]
    whole = {**_DEFAULT, "archMap": machines, "syscalls": _rules()}
    return canonical_json(whole).decode() + "\n"


PROFILE: Final = profile()
"""Read once: what an engine is asked for and what it says that it was asked for are compared as they are."""
