"""Unix sockets whose paths may be longer than the 107 bytes that a socket address holds."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_UCRED: Final = struct.Struct("=iII")
_CGROUP_CHARACTERS: Final = 64 * 1024


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield a short name for a path, by way of its folder's descriptor."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(path: Path, *, mode: int, backlog: int, gid: int | None = None) -> socket.socket:
    """Return a socket that listens at `path`, replacing an earlier one.

    Raises:
        OSError: it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        with _short(path) as name:
            listener.bind(name)
        if gid is not None:
            os.chown(path, -1, gid)
        path.chmod(mode)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def connect(path: Path, *, timeout_s: float) -> socket.socket:
    """Return a socket connected to the one that listens at `path`.

    Raises:
        OSError: nobody listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        with _short(path) as name:
            sock.connect(name)
    except OSError:
        sock.close()
        raise
    return sock


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel knows it.

    Attributes:
        pid: its process when it connected; 0 where this process may not see it.
        uid: its user.
    """

    pid: int
    uid: int

    def is_in_cgroup_of(self, container_id: str) -> bool:
        """Whether its control group is a container's: engines put the container's id into the group's name.

        A process that has ended, or that cannot be looked at, is in none.
        """
        if self.pid <= 0:
            return False
        try:
            with Path(f"/proc/{self.pid}/cgroup").open(encoding="ascii", errors="replace") as groups:
                return container_id in groups.read(_CGROUP_CHARACTERS)
        except OSError:
            return False


def peer(connection: socket.socket) -> Peer:
    """Return who is at the other end."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(packed)
    return Peer(int(pid), int(uid))


def peer_uid(connection: socket.socket) -> int:
    """Return the user at the other end, as the kernel knows it."""
    return peer(connection).uid
