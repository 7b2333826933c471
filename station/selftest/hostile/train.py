"""The train's life: connect, greet, and answer each request with what a probe found.

Each probe runs in a child of its own: one that is killed, hangs or eats all it gets does not end the train that tells of it.
"""

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable

from . import lies, wire
from .attempts import Attempts, name_of
from .probes import PROBES

SOCKET = "/train/control/train.sock"
BEFORE = "/train/data/before.json"


def main() -> int:
    """Serve until the station closes."""
    # The memory killer takes the children, which do the eating.
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(SOCKET)
        lies.before_a_request(sock, _before())
        sock.sendall(wire.hello())
        while (request := wire.receive(sock)) is not None and request["type"] != "finish":
            _serve(sock, request)
    return 0


def _before() -> str:
    with contextlib.suppress(OSError, ValueError), open(BEFORE, encoding="utf-8") as file:
        return str(json.load(file)["lie"])
    return ""


def _serve(sock: socket.socket, request: dict[str, object]) -> None:
    config = request["config"]
    number = request["id"]
    if not isinstance(config, dict) or not isinstance(number, int):
        return
    if "lie" in config:
        lies.answer(sock, str(config["lie"]), number)
        return
    given = config.get("given")
    found = run(PROBES[config["probe"]], given if isinstance(given, dict) else {}, float(config["timeout_s"]))
    sock.sendall(wire.pack(wire.reply(number, found)))


def run(
    probe: Callable[[Attempts, dict[str, object]], None], given: dict[str, object], timeout_s: float
) -> dict[str, object]:
    """Run a probe in a child, and return its notes and how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _probe(probe, given, writing)
    os.close(writing)
    told, in_time = _collect(reading, timeout_s)
    for kill in (os.kill, os.killpg):
        if not in_time or kill is os.killpg:
            with contextlib.suppress(OSError):
                kill(child, signal.SIGKILL)
    _pid, status = os.waitpid(child, 0)
    ended = "in time" if in_time else f"did not end in {timeout_s:g} s"
    if in_time and os.WIFSIGNALED(status):
        ended = f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    notes = [json.loads(line) for line in told.decode().splitlines() if line.endswith("}")]
    return {"attempts": notes, "ended": ended}


def _probe(
    probe: Callable[[Attempts, dict[str, object]], None], given: dict[str, object], writing: int
) -> None:
    """Run in the child; never returns."""

    # Told at once: a probe that is killed has told what came before.
    def tell(note: dict[str, str]) -> None:
        os.write(writing, json.dumps(note).encode() + b"\n")

    attempts = Attempts(tell)
    try:
        # What is left running when this ends is in its group, and killed with it.
        os.setpgid(0, 0)
        probe(attempts, given)
    except OSError as error:
        attempts.stopped("to go on", name_of(error.errno))
    except MemoryError:
        attempts.stopped("to go on", "ENOMEM (no memory for Python)")
    finally:
        os._exit(0)


def _collect(reading: int, timeout_s: float) -> tuple[bytes, bool]:
    deadline = time.monotonic() + timeout_s
    told = b""
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return told, False
            chunk = pipe.read(65536)
            if not chunk:
                return told, True
            told += chunk
