"""The station's frames from the train's side, with every field open to lies."""

import json
import socket
import struct

MAGIC = b"PHT1"
PREFIX = struct.Struct(">4sIQ")


def pack(head: bytes, arrays: bytes = b"", *, head_length: int = -1, arrays_length: int = -1) -> bytes:
    """Return a message; its lengths are what is in it unless they are to be something else."""
    first = len(head) if head_length < 0 else head_length
    second = len(arrays) if arrays_length < 0 else arrays_length
    return PREFIX.pack(MAGIC, first, second) + head + arrays


def reply(number: int, rows: dict[str, object] | None = None) -> bytes:
    """Return the head of an honest reply."""
    body = {"type": "reply", "id": number, "metrics": {}, "rows": rows or {}, "error": None}
    return json.dumps(body).encode()


def hello() -> bytes:
    """Return the first message."""
    return pack(json.dumps({"type": "hello", "protocol": 1, "interface": "flower"}).encode())


def take(sock: socket.socket, count: int) -> bytes:
    """Receive exactly so many bytes; fewer only where the station has closed."""
    taken = b""
    while len(taken) < count:
        chunk = sock.recv(count - len(taken))
        if not chunk:
            break
        taken += chunk
    return taken


def receive(sock: socket.socket) -> dict[str, object] | None:
    """Receive a request's head; ``None`` when the station has closed."""
    prefix = take(sock, PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    _magic, head_length, arrays_length = PREFIX.unpack(prefix)
    head: dict[str, object] = json.loads(take(sock, head_length))
    take(sock, arrays_length)
    return head
