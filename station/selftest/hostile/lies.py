"""Answers that are none: what a train can do wrong on its socket, each under its name.

What the station makes of them is judged by the station's own session and readers, outside.
"""

import gzip
import json
import os
import socket
import struct
import time
from collections.abc import Callable

from . import wire

_MIB = 1 << 20


def before_a_request(sock: socket.socket, lie: str) -> None:
    """Speak before the station has asked anything."""
    if lie == "garbage-before-hello":
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    elif lie == "reply-before-request":
        sock.sendall(wire.hello() + wire.pack(wire.reply(1)))
        _wait_for_the_end(sock)
    elif lie == "silence":
        _wait_for_the_end(sock)


def answer(sock: socket.socket, lie: str, number: int) -> None:
    """Answer a request with a lie, then wait until the station ends it."""
    try:
        LIES[lie](sock, number)
    except OSError:
        return
    if lie not in GOES_ON:
        _wait_for_the_end(sock)


def _wait_for_the_end(sock: socket.socket) -> None:
    sock.settimeout(60)
    try:
        while sock.recv(65536):
            pass
    except OSError:
        pass


def _head(text: bytes) -> Callable[[socket.socket, int], None]:
    """A head of these bytes, in which @ stands for the request's number."""
    return lambda sock, number: sock.sendall(wire.pack(text.replace(b"@", str(number).encode())))


def _rows(inside: bytes) -> Callable[[socket.socket, int], None]:
    return _head(b'{"type":"reply","id":@,"metrics":{},"rows":{"t":' + inside + b'},"error":null}')


def _arrays(made: Callable[[], bytes]) -> Callable[[socket.socket, int], None]:
    return lambda sock, number: sock.sendall(wire.pack(wire.reply(number), made()))


def safetensors(header: dict[str, object] | bytes, data: bytes = b"", *, length: int = -1) -> bytes:
    """Return a file of arrays, whose header may be anything."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length < 0 else length) + encoded + data


def _tensor(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def _many(count: int) -> bytes:
    entries = ",".join(
        f'"{n:x}":{{"dtype":"U8","shape":[],"data_offsets":[{n},{n + 1}]}}' for n in range(count)
    )
    return safetensors(b"{" + entries.encode() + b"}", bytes(count))


def _endless(sock: socket.socket, number: int) -> None:
    """Send what was announced, and go on."""
    sock.settimeout(30)
    sock.sendall(wire.pack(wire.reply(number), safetensors({"w": _tensor(0, 4, [1])}, bytes(4))))
    while True:
        sock.sendall(b"x" * 65536)


def _never_complete(sock: socket.socket, number: int) -> None:
    """Announce all that is accepted, and send a part of it."""
    sock.sendall(wire.pack(wire.reply(number), b"x" * 1000, arrays_length=_MIB))


def _drip(sock: socket.socket, number: int) -> None:
    """Send a byte at a time."""
    for byte in wire.pack(wire.reply(number)):
        sock.sendall(bytes([byte]))
        time.sleep(0.2)


def _truncated(sock: socket.socket, number: int) -> None:
    sock.sendall(wire.pack(wire.reply(number), b"x" * 1000, arrays_length=2000))
    sock.shutdown(socket.SHUT_WR)


def _twice(sock: socket.socket, number: int) -> None:
    sock.sendall(wire.pack(wire.reply(number)) * 2)


def _error_with_results(sock: socket.socket, number: int) -> None:
    body = {"type": "reply", "id": number, "metrics": {"m": 1.0}, "rows": {}, "error": "NO_DATA"}
    sock.sendall(wire.pack(json.dumps(body).encode()))


def _honest(sock: socket.socket, number: int) -> None:
    sock.sendall(wire.pack(wire.reply(number)))


def _deaf(sock: socket.socket, number: int) -> None:
    """Answer, and read nothing ever after."""
    _honest(sock, number)
    while True:
        time.sleep(60)


def _flood(sock: socket.socket, number: int) -> None:
    """Answer, and send without end while the next request comes in."""
    _honest(sock, number)
    sock.recv(1, socket.MSG_PEEK)
    while True:
        sock.sendall(b"x" * 65536)


def _drip_arrays(sock: socket.socket, number: int) -> None:
    """Announce all that is accepted, and send it a byte at a time."""
    sock.sendall(wire.pack(wire.reply(number), arrays_length=_MIB))
    while True:
        sock.sendall(b"x")
        time.sleep(0.05)


def _half_closed(sock: socket.socket, _number: int) -> None:
    """Say nothing, and that nothing will be said."""
    sock.shutdown(socket.SHUT_WR)


def _descriptors(sock: socket.socket, number: int) -> None:
    """Send open files along with an answer."""
    passed = [os.open("/", os.O_RDONLY) for _ in range(100)]
    data = wire.pack(wire.reply(number))
    socket.send_fds(sock, [data[:1]], passed)
    sock.sendall(data[1:])


def _fill(sock: socket.socket, number: int) -> None:
    """Send 48 MiB of nothing, all announced."""
    sock.sendall(wire.pack(wire.reply(number), arrays_length=48 * _MIB))
    for _ in range(48):
        sock.sendall(bytes(_MIB))


_NAN = struct.pack("<f", float("nan"))

GOES_ON = frozenset(
    {
        *(
            "honest",
            "descriptors",
            "wide-head",
            "fill",
            "many-tensors",
            "million-tensors",
            "compression-bomb",
        ),
        *(
            "header-length",
            "header-past-end",
            "header-overlap",
            "header-hole",
            "header-negative",
            "header-shape",
        ),
        *("header-text", "nan-payload", "infinite-payload", "other-tensor"),
    }
)
"""After which the train waits for the next request."""

LIES: dict[str, Callable[[socket.socket, int], None]] = {
    "honest": _honest,
    "deaf": _deaf,
    "flood": _flood,
    "drip-arrays": _drip_arrays,
    "half-closed": _half_closed,
    "descriptors": _descriptors,
    "fill": _fill,
    "wide-head": _rows(b"[" + b"{}," * 340_000 + b"{}]"),
    "silence": lambda _sock, _number: None,
    "two-replies": _twice,
    "other-id": lambda sock, number: sock.sendall(wire.pack(wire.reply(number + 1))),
    "never-complete": _never_complete,
    "drip": _drip,
    "endless": _endless,
    "truncated": _truncated,
    "arrays-length": lambda sock, number: sock.sendall(wire.pack(wire.reply(number), arrays_length=1 << 62)),
    "head-length": lambda sock, number: sock.sendall(wire.pack(b"{}", head_length=0xFFFFFFFF)),
    "magic": lambda sock, number: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
    "error-with-results": _error_with_results,
    "code-in-error": _head(b'{"type":"reply","id":@,"metrics":{},"rows":{},"error":"patient Jansen, 1961"}'),
    "more-keys": _head(b'{"type":"reply","id":@,"metrics":{},"rows":{},"error":null,"note":"x"}'),
    "deep-json": _rows(b"[" * 50_000 + b"]" * 50_000),
    "duplicate-keys": _head(b'{"type":"reply","id":@,"id":@,"metrics":{},"rows":{},"error":null}'),
    "huge-number": _rows(b"9" * 100_000),
    "huge-exponent": _rows(b"1e999999"),
    "nan-in-head": _rows(b"NaN"),
    "half-characters": _rows(b'"\\ud800"'),
    "not-an-object": _head(b"[@]"),
    "header-length": _arrays(lambda: safetensors(b"{}", length=1 << 62)),
    "header-past-end": _arrays(lambda: safetensors({"w": _tensor(0, 4000, [1000])}, bytes(4))),
    "header-overlap": _arrays(
        lambda: safetensors({"a": _tensor(0, 4, [1]), "w": _tensor(0, 4, [1])}, bytes(4))
    ),
    "header-hole": _arrays(lambda: safetensors({"w": _tensor(1000, 1004, [1])}, bytes(1004))),
    "header-negative": _arrays(lambda: safetensors({"w": _tensor(-4, 0, [1])}, bytes(4))),
    "header-shape": _arrays(lambda: safetensors({"w": _tensor(0, 4, [1 << 62, 1 << 62])}, bytes(4))),
    "header-text": _arrays(
        lambda: safetensors({"__metadata__": {"x": "a patient's name"}, "w": _tensor(0, 4, [1])}, bytes(4))
    ),
    "many-tensors": _arrays(lambda: _many(100_000)),
    "million-tensors": _arrays(lambda: _many(1_000_000)),
    "compression-bomb": _arrays(lambda: gzip.compress(bytes(256 * _MIB), 9)[:_MIB]),
    "nan-payload": _arrays(lambda: safetensors({"w": _tensor(0, 4, [1])}, _NAN)),
    "infinite-payload": _arrays(
        lambda: safetensors({"w": _tensor(0, 4, [1])}, struct.pack("<f", float("inf")))
    ),
    "other-tensor": _arrays(lambda: safetensors({"images": _tensor(0, 40, [10])}, bytes(40))),
}
