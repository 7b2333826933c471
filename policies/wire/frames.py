"""The messages that a station and a train in its sandbox exchange over one Unix socket.

A message is::

    magic b"PHT1" | u32 big-endian head length | u64 big-endian arrays length | head | arrays

The head is one JSON object in UTF-8; the arrays are a safetensors file and may be 0 bytes long.

The far end is hostile code. So what is read here streams to a file, nothing is allocated by a length the sender declares,
the whole message has a deadline, and once its first byte has moved it must keep a minimum rate, in both directions. The disk
is asked for room before a message's arrays are written and while they are. Whatever the far end does ends in a message or in
one :class:`policies.wire.heads.ProtocolError`. This module does not look inside the arrays (nor decompresses anything) and does
not know what the keys of a head mean.
"""

import errno
import json
import os
import select
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from pydantic import JsonValue

from policies.wire.heads import ProtocolError, ProtocolReason, parse_head

MAGIC: Final = b"PHT1"
PROTOCOL_VERSION: Final = 1
MAX_HEAD_BYTES: Final = 1 << 20

_PREFIX: Final = struct.Struct(">4sIQ")
_CHUNK_BYTES: Final = 1 << 20
_LOOK_AT_DISK_BYTES: Final = 64 << 20
# Sockets refuse infinite and very long timeouts; a wait is cut into pieces of this length.
_LONGEST_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Pace:
    """The mean rate that a message must keep, counted from its first byte.

    Attributes:
        bytes_per_s: the rate; 0 asks none.
        grace_s: how long after the first byte it is not looked at yet.
    """

    bytes_per_s: int = 64 * 1024
    grace_s: float = 30.0


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """What a reader accepts.

    Attributes:
        max_head_bytes: ceiling of the JSON head.
        max_arrays_bytes: ceiling of the arrays.
        pace: the rate the sender must keep.
        keep_free_bytes: what stays free on the disk that the arrays are written to.
    """

    max_head_bytes: int = MAX_HEAD_BYTES
    max_arrays_bytes: int = 0
    pace: Pace = Pace()
    keep_free_bytes: int = 0


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
    pace: Pace = Pace(),
) -> int:
    """Send one message.

    Args:
        sock: a connected stream socket; its timeout is changed.
        head: the JSON object.
        arrays: a safetensors file to send behind it, or ``None``.
        deadline: on the clock of ``time.monotonic``; without one the call takes as long as the pace allows.
        pace: the rate at which the reader must take it, from the first byte that is sent.

    Returns:
        The bytes sent.

    Raises:
        ProtocolError: the head is no finite JSON or too large, the reader went away, spoke before it had the whole message,
            took it too slowly, or the deadline passed.
        OSError: the arrays file cannot be read.
    """
    try:
        encoded = json.dumps(head, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(ProtocolReason.NOT_JSON) from error
    if len(encoded) > MAX_HEAD_BYTES:
        raise ProtocolError(ProtocolReason.HEAD_TOO_LARGE)
    writer = _Writer(sock, _Clock(deadline, pace))
    if arrays is None:
        return writer.send(_PREFIX.pack(MAGIC, len(encoded), 0) + encoded)
    with arrays.open("rb") as source:
        size = os.fstat(source.fileno()).st_size
        sent = writer.send(_PREFIX.pack(MAGIC, len(encoded), size) + encoded)
        return sent + writer.send_file(source, size)


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
        OSError: the arrays file cannot be written, or would leave less of the disk than is to stay free.
    """
    reader = _Reader(sock, _Clock(deadline, limits.pace))
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
            reader.copy_to(target, arrays_bytes, limits.keep_free_bytes)
    except BaseException:
        arrays_to.unlink(missing_ok=True)
        raise
    return ReceivedMessage(head, arrays_to, arrays_bytes)


class _Clock:
    """Says how long a message may still be waited for: its deadline, and its rate since the first byte."""

    def __init__(self, deadline: float | None, pace: Pace) -> None:
        self._deadline = float("inf") if deadline is None else deadline
        self._pace = pace
        self._began: float | None = None
        self.moved = 0

    def count(self, moved: int) -> None:
        """Count bytes that moved."""
        if self._began is None:
            self._began = time.monotonic()
        self.moved += moved

    def patience_s(self) -> float:
        """Return how long to wait for the next byte.

        Raises:
            ProtocolError: not at all.
        """
        now = time.monotonic()
        left = self._deadline - now
        if left <= 0:
            raise ProtocolError(ProtocolReason.TIMEOUT)
        if self._began is None or self._pace.bytes_per_s <= 0:
            return min(left, _LONGEST_WAIT_S)
        # The moment at which the bytes moved so far would fall below the mean rate.
        earned = self._pace.grace_s + self.moved / self._pace.bytes_per_s
        until_too_slow = self._began + earned - now
        if until_too_slow <= 0:
            raise ProtocolError(ProtocolReason.TOO_SLOW)
        return min(left, until_too_slow, _LONGEST_WAIT_S)


class _Reader:
    """Takes bytes from a socket under a clock."""

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self._sock = sock
        self._clock = clock
        self._buffer = memoryview(bytearray(_CHUNK_BYTES))

    def take(self, count: int) -> bytes:
        """Return exactly ``count`` bytes; ``count`` has been checked against a ceiling."""
        taken = bytearray()
        while len(taken) < count:
            taken += self._some(count - len(taken))
        return bytes(taken)

    def copy_to(self, target: BinaryIO, count: int, keep_free: int) -> None:
        """Write exactly ``count`` bytes to an unbuffered file.

        Raises:
            OSError: they cannot be written, or the disk would not keep ``keep_free`` bytes.
        """
        until_look = 0
        while count:
            if until_look <= 0:
                # Others write to the same disk meanwhile.
                require_room(target.fileno(), count + keep_free)
                until_look = _LOOK_AT_DISK_BYTES
            chunk = self._some(count)
            count -= len(chunk)
            until_look -= len(chunk)
            while chunk:
                chunk = chunk[target.write(chunk) :]

    def _some(self, at_most: int) -> memoryview:
        got = None
        while got is None:
            try:
                self._sock.settimeout(self._clock.patience_s())
                got = self._sock.recv_into(self._buffer, min(at_most, _CHUNK_BYTES))
            except TimeoutError:
                continue  # the next look at the clock says whether the deadline or the rate was missed
            except OSError as error:
                raise ProtocolError(self._gone()) from error
        if got == 0:
            raise ProtocolError(self._gone())
        self._clock.count(got)
        return self._buffer[:got]

    def _gone(self) -> ProtocolReason:
        return ProtocolReason.TRUNCATED if self._clock.moved else ProtocolReason.CLOSED


class _Writer:
    """Gives bytes to a socket under a clock, as long as its far end listens."""

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self._sock = sock
        self._clock = clock
        self._ready = select.poll()
        self._ready.register(sock, select.POLLIN | select.POLLOUT)
        # Counted from the first try: a reader that takes nothing is a slow one.
        clock.count(0)

    def send(self, data: bytes | memoryview) -> int:
        """Send all of it."""
        rest = memoryview(data)
        while rest:
            events = self._wait()
            if events & select.POLLIN:
                # Nobody who still listens speaks before the whole message is there.
                raise ProtocolError(ProtocolReason.UNASKED if self._speaks() else ProtocolReason.CLOSED)
            if not events:
                continue
            try:
                self._sock.setblocking(False)
                sent = self._sock.send(rest)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ProtocolError(ProtocolReason.CLOSED) from error
            self._clock.count(sent)
            rest = rest[sent:]
        return len(data)

    def send_file(self, source: BinaryIO, size: int) -> int:
        """Send ``size`` bytes of a file."""
        left = size
        buffer = memoryview(bytearray(min(_CHUNK_BYTES, size)))
        while left:
            got = os.readv(source.fileno(), [buffer[: min(left, len(buffer))]])
            if got == 0:  # the file shrank; the reader must not take the next head for its rest
                raise ProtocolError(ProtocolReason.TRUNCATED)
            self.send(buffer[:got])
            left -= got
        return size

    def _wait(self) -> int:
        # In whole milliseconds, and at least one: the clock decides what is too long.
        found = self._ready.poll(max(1, int(self._clock.patience_s() * 1000)))
        return found[0][1] if found else 0

    def _speaks(self) -> bool:
        """Whether the far end has said anything, or that it will say nothing any more."""
        try:
            self._sock.setblocking(False)
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False


def require_room(on: int | Path, needed: int) -> None:
    """Ask a disk for room.

    Args:
        on: a descriptor or a path of it.
        needed: how many bytes must be free.

    Raises:
        OSError: they are not.
    """
    disk = os.statvfs(on)
    if disk.f_bavail * disk.f_frsize < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
