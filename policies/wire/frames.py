"""The messages that a station and a train in its sandbox exchange over one Unix socket.

A message is::

    magic b"PHT1" | u32 big-endian head length | u64 big-endian arrays length | head | arrays

The head is one JSON object in UTF-8; the arrays are a safetensors file and may be 0 bytes long.

The far end is hostile code. So what is read here streams to a file, nothing is allocated by a length the sender declares,
the whole message has a deadline, and once its first byte is in it must keep a minimum rate. Whatever the sender does ends
in a message or in one :class:`ProtocolError` with a :class:`ProtocolReason`. This module does not look inside the arrays and does
not know what the keys of a head mean.
"""

import json
import math
import os
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

from pydantic import JsonValue

from policies.errors import WireError

MAGIC: Final = b"PHT1"
PROTOCOL_VERSION: Final = 1
MAX_HEAD_BYTES: Final = 1 << 20
MAX_JSON_DEPTH: Final = 16

_PREFIX: Final = struct.Struct(">4sIQ")
_CHUNK_BYTES: Final = 1 << 20
_MAX_INTEGER_DIGITS: Final = 20
# Sockets refuse infinite and very long timeouts; a wait is cut into pieces of this length.
_LONGEST_WAIT_S: Final = 60.0


class ProtocolReason(StrEnum):
    """Why a message was not accepted. A closed list: the values end up in audit records."""

    BAD_MAGIC = "bad-magic"
    HEAD_TOO_LARGE = "head-too-large"
    ARRAYS_TOO_LARGE = "arrays-too-large"
    CLOSED = "closed"
    TRUNCATED = "truncated"
    TIMEOUT = "timeout"
    TOO_SLOW = "too-slow"
    NOT_JSON = "not-json"
    TOO_DEEP = "too-deep"
    NOT_AN_OBJECT = "not-an-object"
    DUPLICATE_KEY = "duplicate-key"
    NOT_FINITE = "not-finite"
    NUMBER_TOO_LONG = "number-too-long"


class ProtocolError(WireError):
    """A message that breaks the container protocol.

    Attributes:
        reason: the code; the text of the exception is made here and never holds bytes of the sender.
    """

    def __init__(self, reason: ProtocolReason) -> None:
        super().__init__(f"container protocol: {reason.value}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """What a reader accepts.

    Attributes:
        max_head_bytes: ceiling of the JSON head.
        max_arrays_bytes: ceiling of the arrays.
        min_bytes_per_s: mean rate a message must keep, counted from its first byte.
        rate_grace_s: how long after the first byte the rate is not looked at yet.
    """

    max_head_bytes: int = MAX_HEAD_BYTES
    max_arrays_bytes: int = 0
    min_bytes_per_s: int = 64 * 1024
    rate_grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One message, its arrays lying in a file (``None`` where it has none)."""

    head: dict[str, JsonValue]
    arrays: Path | None
    arrays_bytes: int


def write_message(
    sock: socket.socket,
    head: Mapping[str, JsonValue],
    arrays: Path | None,
    *,
    deadline: float | None = None,
) -> int:
    """Send one message.

    Args:
        sock: a connected stream socket; its timeout is changed.
        head: the JSON object.
        arrays: a safetensors file to send behind it, or ``None``.
        deadline: on the clock of ``time.monotonic``; without one the call waits as long as the reader takes.

    Returns:
        The bytes sent.

    Raises:
        ProtocolError: the head is no finite JSON or too large, the reader went away, or the deadline passed.
        OSError: the arrays file cannot be read.
    """
    try:
        encoded = json.dumps(head, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(ProtocolReason.NOT_JSON) from error
    if len(encoded) > MAX_HEAD_BYTES:
        raise ProtocolError(ProtocolReason.HEAD_TOO_LARGE)
    if arrays is None:
        return _send(sock, _PREFIX.pack(MAGIC, len(encoded), 0) + encoded, deadline)
    with arrays.open("rb") as source:
        size = os.fstat(source.fileno()).st_size
        sent = _send(sock, _PREFIX.pack(MAGIC, len(encoded), size) + encoded, deadline)
        return sent + _send_file(sock, source, size, deadline)


def read_message(
    sock: socket.socket, limits: FrameLimits, arrays_to: Path, deadline: float
) -> ReceivedMessage:
    """Read one message, streaming its arrays to ``arrays_to``.

    Args:
        sock: a connected stream socket; its timeout is changed.
        limits: the ceilings; a declared length above one refuses before a byte of it is read.
        arrays_to: the file to write (0600, replaced when there, links not followed); left behind only when the message
            was complete.
        deadline: on the clock of ``time.monotonic``, for the whole message with the wait for its first byte.

    Raises:
        ProtocolError: for everything that the sender can do wrong.
        OSError: the arrays file cannot be written.
    """
    reader = _Reader(sock, limits, deadline)
    magic, head_bytes, arrays_bytes = _PREFIX.unpack(reader.take(_PREFIX.size))
    if magic != MAGIC:
        raise ProtocolError(ProtocolReason.BAD_MAGIC)
    if head_bytes > limits.max_head_bytes:
        raise ProtocolError(ProtocolReason.HEAD_TOO_LARGE)
    if arrays_bytes > limits.max_arrays_bytes:
        raise ProtocolError(ProtocolReason.ARRAYS_TOO_LARGE)
    head = parse_head(reader.take(head_bytes))
    if arrays_bytes == 0:
        return ReceivedMessage(head, None, 0)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(arrays_to, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as target:
            reader.copy_to(target, arrays_bytes)
    except BaseException:
        arrays_to.unlink(missing_ok=True)
        raise
    return ReceivedMessage(head, arrays_to, arrays_bytes)


def parse_head(encoded: bytes) -> dict[str, JsonValue]:
    """Parse the head of a message strictly.

    Refused beside what is no JSON: a value that is no object, a key given twice, NaN and infinities (also as ``1e999``),
    integers of more than 20 digits, nesting deeper than 16, and strings that UTF-8 cannot hold.

    Raises:
        ProtocolError: with the reason.

    >>> parse_head(b'{"type": "reply", "id": 1}')
    {'type': 'reply', 'id': 1}
    """
    try:
        value = json.loads(
            encoded.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short_integer,
        )
    except RecursionError as error:
        raise ProtocolError(ProtocolReason.TOO_DEEP) from error
    except ValueError as error:
        raise ProtocolError(ProtocolReason.NOT_JSON) from error
    if not isinstance(value, dict):
        raise ProtocolError(ProtocolReason.NOT_AN_OBJECT)
    _check_tree(value)
    return value


class _Reader:
    """Takes bytes from a socket under a deadline and a minimum rate."""

    def __init__(self, sock: socket.socket, limits: FrameLimits, deadline: float) -> None:
        self._sock = sock
        self._limits = limits
        self._deadline = deadline
        self._began: float | None = None
        self._received = 0
        self._buffer = memoryview(bytearray(_CHUNK_BYTES))

    def take(self, count: int) -> bytes:
        """Return exactly ``count`` bytes; ``count`` has been checked against a ceiling."""
        taken = bytearray()
        while len(taken) < count:
            taken += self._some(count - len(taken))
        return bytes(taken)

    def copy_to(self, target: BinaryIO, count: int) -> None:
        """Write exactly ``count`` bytes to an unbuffered file."""
        while count:
            chunk = self._some(count)
            count -= len(chunk)
            while chunk:
                chunk = chunk[target.write(chunk) :]

    def _some(self, at_most: int) -> memoryview:
        got = None
        while got is None:
            try:
                self._sock.settimeout(self._patience_s())
                got = self._sock.recv_into(self._buffer, min(at_most, _CHUNK_BYTES))
            except TimeoutError:
                continue  # the next look at the clock says whether the deadline or the rate was missed
            except OSError as error:
                raise ProtocolError(self._gone()) from error
        if got == 0:
            raise ProtocolError(self._gone())
        if self._began is None:
            self._began = time.monotonic()
        self._received += got
        return self._buffer[:got]

    def _patience_s(self) -> float:
        now = time.monotonic()
        left = self._deadline - now
        if left <= 0:
            raise ProtocolError(ProtocolReason.TIMEOUT)
        if self._began is None or self._limits.min_bytes_per_s <= 0:
            return min(left, _LONGEST_WAIT_S)
        # The moment at which the bytes received so far would fall below the mean rate.
        earned = self._limits.rate_grace_s + self._received / self._limits.min_bytes_per_s
        until_too_slow = self._began + earned - now
        if until_too_slow <= 0:
            raise ProtocolError(ProtocolReason.TOO_SLOW)
        return min(left, until_too_slow, _LONGEST_WAIT_S)

    def _gone(self) -> ProtocolReason:
        return ProtocolReason.TRUNCATED if self._received else ProtocolReason.CLOSED


def _send(sock: socket.socket, data: bytes | memoryview, deadline: float | None) -> int:
    rest = memoryview(data)
    while rest:
        left = _LONGEST_WAIT_S if deadline is None else min(deadline - time.monotonic(), _LONGEST_WAIT_S)
        if left <= 0:
            raise ProtocolError(ProtocolReason.TIMEOUT)
        try:
            sock.settimeout(left)
            rest = rest[sock.send(rest) :]
        except TimeoutError:
            continue
        except OSError as error:
            raise ProtocolError(ProtocolReason.CLOSED) from error
    return len(data)


def _send_file(sock: socket.socket, source: BinaryIO, size: int, deadline: float | None) -> int:
    left = size
    buffer = memoryview(bytearray(min(_CHUNK_BYTES, size)))
    while left:
        got = os.readv(source.fileno(), [buffer[: min(left, len(buffer))]])
        if got == 0:  # the file shrank; the reader must not take the next head for its rest
            raise ProtocolError(ProtocolReason.TRUNCATED)
        _send(sock, buffer[:got], deadline)
        left -= got
    return size


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ProtocolError(ProtocolReason.DUPLICATE_KEY)
    return made


def _refuse_constant(_name: str) -> NoReturn:
    raise ProtocolError(ProtocolReason.NOT_FINITE)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ProtocolError(ProtocolReason.NOT_FINITE)
    return value


def _short_integer(text: str) -> int:
    if len(text) > _MAX_INTEGER_DIGITS:
        raise ProtocolError(ProtocolReason.NUMBER_TOO_LONG)
    return int(text)


def _check_tree(root: JsonValue) -> None:
    """Check depth and strings without recursion."""
    waiting: list[tuple[JsonValue, int]] = [(root, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, dict | list):
            if depth > MAX_JSON_DEPTH:
                raise ProtocolError(ProtocolReason.TOO_DEEP)
            if isinstance(value, dict):
                for key in value:
                    _check_text(key)
                waiting.extend((each, depth + 1) for each in value.values())
            else:
                waiting.extend((each, depth + 1) for each in value)


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # a lone surrogate, written as \ud800
        raise ProtocolError(ProtocolReason.NOT_JSON) from error
