"""What the hostile train is set upon: baits with known secrets, and listeners of this host that it must not reach.

Nothing here is the hospital's: the files, the memory, the process and the sockets are made for the test and removed after it.
"""

import contextlib
import ctypes
import itertools
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import JsonValue

COHORT_NAME: Final = "other-cohort-datalist.json"
PATIENT_NAME: Final = "case-0002.bin"
_HOLD: Final = "import sys; sys.stdin.buffer.read()"
_IPC_CREAT, _IPC_RMID = 0o1000, 0
_ACCEPT_S: Final = 0.2


@dataclass
class Ground:
    """The baits, and who came for them.

    Attributes:
        given: what the probes are told, so that they try what is really there.
        reached: listeners of this host that somebody connected to.
        secrets: by what they stand for; none may be found where a train's words are kept or sent.
    """

    given: dict[str, JsonValue]
    secrets: dict[str, str]
    reached: list[str] = field(default_factory=list)


@contextlib.contextmanager
def lay_out(cohorts: Path) -> Iterator[Ground]:
    """Make the baits and listen; everything is gone afterwards.

    Args:
        cohorts: where a second train's cohort and a second patient lie while the test runs.
    """
    marks = {
        name: f"pht-canary-{name}-{secrets.token_hex(12)}" for name in ("host", "cohort", "patient", "dump")
    }
    with contextlib.ExitStack() as undo:
        ground = Ground({}, marks)
        ground.given |= _files(undo, cohorts, marks)
        ground.given |= _listen(undo, ground)
        ground.given |= _memory(undo, marks["host"])
        ground.given |= _process(undo, marks["host"])
        ground.given |= {
            "addresses": list(_addresses()),
            "addresses6": list(_addresses6()),
            "resolvers": list(_resolvers()),
            "dump_canary": marks["dump"],
        }
        yield ground


def _files(undo: contextlib.ExitStack, cohorts: Path, marks: dict[str, str]) -> dict[str, JsonValue]:
    folder = Path(tempfile.mkdtemp(prefix="pht-selftest-"))
    undo.callback(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    host = folder / "secret.txt"
    host.write_text(marks["host"])
    host.chmod(0o644)
    other = cohorts / f"selftest-decoy-{secrets.token_hex(4)}"
    (other / "images").mkdir(parents=True)
    undo.callback(shutil.rmtree, other, ignore_errors=True)
    for name, mark in ((COHORT_NAME, marks["cohort"]), (f"images/{PATIENT_NAME}", marks["patient"])):
        (other / name).write_text(mark)
        (other / name).chmod(0o644)
    for each in (other, other / "images"):
        each.chmod(0o755)
    return {
        "host_file": str(host),
        "host_canary": marks["host"],
        "cohort_file": str(other / COHORT_NAME),
        "cohort_name": COHORT_NAME,
        "cohort_canary": marks["cohort"],
        "patient_name": PATIENT_NAME,
        "patient_canary": marks["patient"],
    }


def _listen(undo: contextlib.ExitStack, ground: Ground) -> dict[str, JsonValue]:
    """Listen on every kind of socket that this host has; a port of 9 stands for one that it has not."""
    name = f"pht-selftest-{secrets.token_hex(8)}"
    any_v4, any_v6 = "0.0.0.0", "::"  # noqa: S104 - reachable by every address, that is the test
    kinds: tuple[tuple[str, int, str | tuple[object, ...]], ...] = (
        ("tcp_port", socket.AF_INET, (any_v4, 0)),
        ("tcp6_port", socket.AF_INET6, (any_v6, 0)),
        ("abstract", socket.AF_UNIX, "\0" + name),
        ("vsock_port", getattr(socket, "AF_VSOCK", 40), (0xFFFFFFFF, 0xFFFFFFFF)),
    )
    told: dict[str, JsonValue] = {}
    over = threading.Event()
    undo.callback(over.set)
    for key, family, address in kinds:
        told[key] = name if key == "abstract" else 9
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue
        undo.callback(listener.close)
        try:
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(8)
        except OSError:
            continue
        listener.settimeout(_ACCEPT_S)
        if key != "abstract":
            told[key] = listener.getsockname()[1]
        thread = threading.Thread(target=_accept, args=(listener, key, ground, over), daemon=True)
        thread.start()
        undo.callback(thread.join)
    # Last in, first out: the threads are told to end before they are waited for.
    undo.callback(over.set)
    return told


def _accept(listener: socket.socket, name: str, ground: Ground, over: threading.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            ground.reached.append(name)
            connection.close()


def _memory(undo: contextlib.ExitStack, mark: str) -> dict[str, JsonValue]:
    """Leave the secret in this process, in a segment and in a file that every program of this host may read."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    key = secrets.randbelow(1 << 30) + 1
    segment = libc.shmget(key, 4096, _IPC_CREAT | 0o666)
    if segment >= 0:
        undo.callback(libc.shmctl, segment, _IPC_RMID, None)
    name = f"pht-selftest-{secrets.token_hex(8)}"
    with contextlib.suppress(OSError):
        file = Path("/dev/shm", name)  # noqa: S108
        file.write_text(mark)
        undo.callback(file.unlink, missing_ok=True)
        file.chmod(0o644)
    kept = ctypes.create_string_buffer(mark.encode())
    # The stack holds it: the memory must stay where the probe was told that it is.
    undo.callback(lambda: kept.raw)
    return {"shm_key": key, "shm_name": name, "host_pid": os.getpid(), "host_address": ctypes.addressof(kept)}


def _process(undo: contextlib.ExitStack, mark: str) -> dict[str, JsonValue]:
    """Run a process that has the secret on its command line, as programs have their passwords."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _HOLD, mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    undo.callback(process.wait)
    undo.callback(process.kill)
    if process.stdin is not None:
        undo.callback(process.stdin.close)
    return {}


def _addresses() -> Iterator[str]:
    """Yield this host's IPv4 addresses, as the kernel's own table of routes has them."""
    lines = _lines("/proc/net/fib_trie")
    found = {
        before.split()[-1]
        for before, line in itertools.pairwise(lines)
        if "/32 host LOCAL" in line and not before.split()[-1].startswith("127.")
    }
    yield from sorted(found)[:8]


def _addresses6() -> Iterator[str]:
    for line in _lines("/proc/net/if_inet6")[:8]:
        packed = bytes.fromhex(line.split()[0])
        if packed != bytes(15) + b"\x01" and packed[:2] != b"\xfe\x80":
            yield socket.inet_ntop(socket.AF_INET6, packed)


def _resolvers() -> Iterator[str]:
    for line in _lines("/etc/resolv.conf"):
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            yield words[1].split("%")[0]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8").splitlines()
    except OSError:
        return []
