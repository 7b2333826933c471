"""The container protocol as the train's side speaks it.

A message is ``b"PHT1" | u32 head length | u64 arrays length | head (JSON) | arrays (safetensors)``, lengths big-endian.
Arrays come in through an anonymous file, so that they cost their size once, and go out tensor by tensor.
"""

import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROTOCOL_VERSION = 1
MAGIC = b"PHT1"
MAX_HEAD_BYTES = 1 << 20
MAX_REPLY_HEAD_BYTES = 16 << 20
"""With the rows of a large cohort; a station reads only as much as its own cohort can need."""

_PREFIX = struct.Struct(">4sIQ")
_CHUNK_BYTES = 1 << 20

# safetensors' names of the types that numpy has as well
_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "float16": "F16",
    "uint32": "U32",
    "int32": "I32",
    "float32": "F32",
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
}

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class ConnectionEndedError(Exception):
    """The station closed the socket, or sent what is no message."""


@dataclass(frozen=True, slots=True)
class Request:
    """One message of the station.

    Attributes:
        head: its JSON object.
        arrays_path: a safetensors file, readable until the request has been answered; ``None`` without arrays.
    """

    head: dict[str, Json]
    arrays_path: str | None


@contextmanager
def receive(sock: socket.socket) -> Iterator[Request]:
    """Wait for one message; its arrays exist inside the ``with`` block.

    Raises:
        ConnectionEndedError: there is none.
    """
    magic, head_bytes, arrays_bytes = _PREFIX.unpack(_take(sock, _PREFIX.size))
    if magic != MAGIC or head_bytes > MAX_HEAD_BYTES:
        raise ConnectionEndedError
    head = json.loads(_take(sock, head_bytes))
    if arrays_bytes == 0:
        yield Request(head, None)
        return
    # In memory, not in /train/scratch: that space belongs to the train.
    descriptor = os.memfd_create("arrays")
    try:
        _copy(sock, descriptor, arrays_bytes)
        yield Request(head, f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def send(
    sock: socket.socket,
    head: Mapping[str, Json],
    arrays: "Mapping[str, NDArray[np.generic]] | None" = None,
) -> None:
    """Send one message.

    Raises:
        ValueError: the head is larger than the protocol allows or holds NaN or an infinity, or an array has a type that
            safetensors does not know.
    """
    encoded = json.dumps(head, allow_nan=False, separators=(",", ":")).encode()
    if len(encoded) > MAX_REPLY_HEAD_BYTES:
        raise ValueError(
            f"the reply's metrics and rows take {len(encoded)} bytes; at most {MAX_REPLY_HEAD_BYTES} are sent"
        )
    layout, ordered = _layout(arrays or {})
    body_bytes = sum(array.nbytes for array in ordered)
    total = len(layout) + body_bytes
    sock.sendall(_PREFIX.pack(MAGIC, len(encoded), total) + encoded + layout)
    for array in ordered:
        if array.nbytes:
            sock.sendall(array.reshape(-1).view("uint8").data)


def send_file(sock: socket.socket, head: Mapping[str, Json], path: str | None) -> None:
    """Send one message whose arrays are a finished safetensors file."""
    encoded = json.dumps(head, allow_nan=False, separators=(",", ":")).encode()
    if len(encoded) > MAX_REPLY_HEAD_BYTES:
        raise ValueError(
            f"the reply's head takes {len(encoded)} bytes; at most {MAX_REPLY_HEAD_BYTES} are sent"
        )
    if path is None:
        sock.sendall(_PREFIX.pack(MAGIC, len(encoded), 0) + encoded)
        return
    with open(path, "rb") as file:  # noqa: PTH123 - a path under /proc/self/fd is as good
        size = os.fstat(file.fileno()).st_size
        sock.sendall(_PREFIX.pack(MAGIC, len(encoded), size) + encoded)
        sock.sendfile(file)


def _layout(arrays: "Mapping[str, NDArray[np.generic]]") -> "tuple[bytes, list[NDArray[np.generic]]]":
    """Return the safetensors header and the arrays in the order in which they follow it."""
    if not arrays:
        return b"", []
    # Here and not above: a map train's runtime starts once per patient, and sends no arrays.
    import numpy as np  # noqa: PLC0415

    header: dict[str, Json] = {}
    ordered: list[NDArray[np.generic]] = []
    offset = 0
    # Widest types first, so that every tensor lies aligned to its own size.
    for name in sorted(arrays, key=lambda each: (-arrays[each].dtype.itemsize, each)):
        array = np.asarray(arrays[name], order="C")
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if array.dtype.name not in _DTYPES:
            raise ValueError(f"array {name!r} has the type {array.dtype.name}, which cannot be sent")
        end = offset + array.nbytes
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        ordered.append(array)
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded, ordered


def _take(sock: socket.socket, count: int) -> bytes:
    taken = bytearray()
    while len(taken) < count:
        chunk = sock.recv(min(count - len(taken), _CHUNK_BYTES))
        if not chunk:
            raise ConnectionEndedError
        taken += chunk
    return bytes(taken)


def _copy(sock: socket.socket, descriptor: int, count: int) -> None:
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    while count:
        got = sock.recv_into(buffer, min(count, _CHUNK_BYTES))
        if got == 0:
            raise ConnectionEndedError
        count -= got
        chunk = buffer[:got]
        while chunk:
            chunk = chunk[os.write(descriptor, chunk) :]
