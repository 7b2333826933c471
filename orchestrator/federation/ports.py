"""A port to listen on that stays ours: outside the range from which the kernel gives ports to whoever asks for any.

A port of that range can be somebody's own end of a connection, or another program's, by the time that it is listened on, and again
whenever who listens is started anew.
"""

import secrets
import socket
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_LOWEST: Final = 10_000
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FEWEST: Final = 1000
_TRIES: Final = 100
_told: set[int] = set()


def free_port() -> int:
    """Return a loopback port that nobody listens on now, and that this process was not told before.

    Who asks for several has them all before it listens on the first.
    """
    below = _first_given()
    if below - _LOWEST >= _FEWEST:
        for _ in range(_TRIES):
            port = _LOWEST + secrets.randbelow(below - _LOWEST)
            if port not in _told and _is_free(port):
                _told.add(port)
                return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _first_given() -> int:
    """The lowest port that the kernel gives away; 0 where it does not say."""
    try:
        return int(_RANGE.read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
