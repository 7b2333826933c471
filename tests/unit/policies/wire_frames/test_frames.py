"""The container protocol: what a hostile sender can do ends in a message or in one ProtocolError, in time."""

import contextlib
import errno
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.wire import frames
from policies.wire.frames import (
    MAGIC,
    MAX_HEAD_BYTES,
    FrameLimits,
    Pace,
    ReceivedMessage,
    read_message,
    write_message,
)
from policies.wire.heads import ProtocolError, ProtocolReason, parse_head

LIMITS = FrameLimits(max_arrays_bytes=1 << 20)


def prefix(head_bytes: int, arrays_bytes: int, magic: bytes = MAGIC) -> bytes:
    return struct.pack(">4sIQ", magic, head_bytes, arrays_bytes)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def read_bytes(
    data: bytes, folder: Path, limits: FrameLimits = LIMITS, *, patience_s: float = 120.0
) -> ReceivedMessage:
    """Read a message from a sender who sends `data` and goes away."""
    here, there = socket.socketpair()
    with here, there:
        sender = threading.Thread(target=_send_and_close, args=(there, data))
        sender.start()
        try:
            return read_message(here, limits, folder / "arrays", time.monotonic() + patience_s)
        finally:
            here.close()
            sender.join()


def _send_and_close(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the reader refused and went away
        sock.sendall(data)
    sock.close()


def reason_of(data: bytes, folder: Path, limits: FrameLimits = LIMITS) -> ProtocolReason:
    with pytest.raises(ProtocolError) as caught:
        read_bytes(data, folder, limits)
    assert not (folder / "arrays").exists()
    return caught.value.reason


def test_a_message_arrives_as_it_was_sent(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    here, there = pair
    (tmp_path / "sent").write_bytes(bytes(range(256)) * 10_000)
    head = {"type": "reply", "id": 7, "metrics": {"loss": 0.5}, "error": None, "text": "é"}
    sender = threading.Thread(target=write_message, args=(there, head, tmp_path / "sent"))
    sender.start()
    got = read_message(here, FrameLimits(max_arrays_bytes=1 << 22), tmp_path / "got", time.monotonic() + 120)
    sender.join()
    assert got == ReceivedMessage(head, tmp_path / "got", 2_560_000)
    assert (tmp_path / "got").read_bytes() == (tmp_path / "sent").read_bytes()
    assert (tmp_path / "got").stat().st_mode & 0o777 == 0o600


def test_messages_follow_each_other_on_one_connection(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    here, there = pair
    (tmp_path / "sent").write_bytes(b"abc")
    for number in range(3):
        write_message(there, {"id": number}, tmp_path / "sent" if number == 1 else None)
    received = [read_message(here, LIMITS, tmp_path / "got", time.monotonic() + 120) for _ in range(3)]
    assert [each.head["id"] for each in received] == [0, 1, 2]
    assert [each.arrays_bytes for each in received] == [0, 3, 0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", ProtocolReason.CLOSED),
        (b"PH", ProtocolReason.TRUNCATED),
        (prefix(2, 0, b"PHT2") + b"{}", ProtocolReason.BAD_MAGIC),
        (b"GET / HTTP/1.1\r\n\r\n", ProtocolReason.BAD_MAGIC),
        (prefix(MAX_HEAD_BYTES + 1, 0), ProtocolReason.HEAD_TOO_LARGE),
        (prefix(0xFFFFFFFF, 0), ProtocolReason.HEAD_TOO_LARGE),
        (prefix(2, (1 << 20) + 1) + b"{}", ProtocolReason.ARRAYS_TOO_LARGE),
        (prefix(2, (1 << 64) - 1) + b"{}", ProtocolReason.ARRAYS_TOO_LARGE),
        (prefix(10, 0) + b"{}", ProtocolReason.TRUNCATED),
        (prefix(2, 10) + b"{}" + b"123", ProtocolReason.TRUNCATED),
        (prefix(0, 0), ProtocolReason.NOT_JSON),
        (prefix(2, 0) + b"{]", ProtocolReason.NOT_JSON),
        (prefix(4, 0) + b"null", ProtocolReason.NOT_AN_OBJECT),
    ],
)
def test_a_broken_message_is_named(data: bytes, reason: ProtocolReason, tmp_path: Path) -> None:
    assert reason_of(data, tmp_path) is reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", ProtocolReason.NOT_AN_OBJECT),
        ('{"a":1,"a":2}', ProtocolReason.DUPLICATE_KEY),
        ('{"a":{"b":1,"b":1}}', ProtocolReason.DUPLICATE_KEY),
        ('{"a":NaN}', ProtocolReason.NOT_FINITE),
        ('{"a":-Infinity}', ProtocolReason.NOT_FINITE),
        ('{"a":1e999}', ProtocolReason.NOT_FINITE),
        ('{"a":' + "9" * 21 + "}", ProtocolReason.NUMBER_TOO_LONG),
        ('{"a":' + "9" * 9000 + "}", ProtocolReason.NUMBER_TOO_LONG),
        ('{"a":0.' + "9" * 900_000 + "}", ProtocolReason.NUMBER_TOO_LONG),
        ('{"a":' * 17 + "1" + "}" * 17, ProtocolReason.TOO_DEEP),
        ('{"a":' + "[" * 200_000 + "]" * 200_000 + "}", ProtocolReason.TOO_DEEP),
        ('{"a":"\\ud800"}', ProtocolReason.NOT_JSON),
        ('{"\\udfff":1}', ProtocolReason.NOT_JSON),
        ("\ufeff{}", ProtocolReason.NOT_JSON),
    ],
)
def test_a_head_is_parsed_strictly(text: str, reason: ProtocolReason) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_head(text.encode())
    assert caught.value.reason is reason


def test_a_head_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_head(b'{"a":"\xff"}')
    assert caught.value.reason is ProtocolReason.NOT_JSON


def test_nesting_up_to_the_limit_is_accepted() -> None:
    assert parse_head(b'{"a":' * 16 + b"1" + b"}" * 16)


def test_a_silent_sender_ends_at_the_deadline(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    here, _there = pair
    began = time.monotonic()
    with pytest.raises(ProtocolError) as caught:
        read_message(here, LIMITS, tmp_path / "got", began + 0.2)
    assert caught.value.reason is ProtocolReason.TIMEOUT
    assert time.monotonic() - began < 60


def test_a_sender_below_the_minimum_rate_is_cut_off(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    here, there = pair
    there.sendall(prefix(1000, 0) + b"{")
    limits = FrameLimits(pace=Pace(bytes_per_s=1000, grace_s=0.1))
    began = time.monotonic()
    with pytest.raises(ProtocolError) as caught:
        read_message(here, limits, tmp_path / "got", began + 600)
    assert caught.value.reason is ProtocolReason.TOO_SLOW
    assert time.monotonic() - began < 300


def test_an_endless_deadline_is_no_overflow(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    here, there = pair
    write_message(there, {"a": 1}, None)
    assert read_message(here, LIMITS, tmp_path / "got", float("inf")).head == {"a": 1}


def test_a_reader_that_takes_nothing_ends_a_write(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    here, _there = pair
    (tmp_path / "sent").write_bytes(bytes(8 << 20))
    with pytest.raises(ProtocolError) as caught:
        write_message(here, {}, tmp_path / "sent", deadline=time.monotonic() + 0.2)
    assert caught.value.reason is ProtocolReason.TIMEOUT


def test_a_reader_that_takes_too_little_is_cut_off_long_before_the_deadline(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    here, _there = pair
    (tmp_path / "sent").write_bytes(bytes(8 << 20))
    with pytest.raises(ProtocolError) as caught:
        write_message(
            here, {}, tmp_path / "sent", deadline=time.monotonic() + 3600, pace=Pace(1 << 30, grace_s=0.2)
        )
    assert caught.value.reason is ProtocolReason.TOO_SLOW


def test_who_speaks_before_the_whole_message_is_there_is_not_listened_to(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    here, there = pair
    (tmp_path / "sent").write_bytes(bytes(8 << 20))
    there.sendall(b"x")
    with pytest.raises(ProtocolError) as caught:
        write_message(here, {}, tmp_path / "sent", deadline=time.monotonic() + 3600)
    assert caught.value.reason is ProtocolReason.UNASKED


def test_who_will_never_answer_is_sent_nothing_more(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    here, there = pair
    (tmp_path / "sent").write_bytes(bytes(8 << 20))
    there.shutdown(socket.SHUT_WR)
    with pytest.raises(ProtocolError) as caught:
        write_message(here, {}, tmp_path / "sent", deadline=time.monotonic() + 3600)
    assert caught.value.reason is ProtocolReason.CLOSED


def test_a_disk_without_room_takes_no_arrays(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    here, there = pair
    there.sendall(prefix(2, 3) + b"{}abc")
    disk = os.statvfs(tmp_path)
    limits = FrameLimits(max_arrays_bytes=3, keep_free_bytes=disk.f_blocks * disk.f_frsize)
    with pytest.raises(OSError, match="No space left"):
        read_message(here, limits, tmp_path / "got", time.monotonic() + 60)
    assert not (tmp_path / "got").exists()


def test_a_disk_that_fills_meanwhile_stops_the_arrays(tmp_path: Path) -> None:
    """Room was there when the message began; it is asked for again while it is written."""
    asked = []

    def room(_on: int, needed: int) -> None:
        asked.append(needed)
        if len(asked) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "require_room", room)
        patch.setattr(frames, "_LOOK_AT_DISK_BYTES", 1 << 16)
        with pytest.raises(OSError, match="No space left"):
            read_bytes(prefix(2, 1 << 20) + b"{}" + bytes(1 << 20), tmp_path)
    assert len(asked) == 2
    assert asked[0] > asked[1]
    assert not (tmp_path / "arrays").exists()


def test_a_reader_that_went_away_ends_a_write(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    there.close()
    with pytest.raises(ProtocolError) as caught:
        write_message(here, {}, None)
    assert caught.value.reason is ProtocolReason.CLOSED


@pytest.mark.parametrize("head", [{"a": float("nan")}, {"a": object()}])
def test_a_head_that_is_no_json_is_not_sent(
    pair: tuple[socket.socket, socket.socket], head: dict[str, object]
) -> None:
    with pytest.raises(ProtocolError) as caught:
        write_message(pair[0], head, None)  # type: ignore[arg-type]
    assert caught.value.reason is ProtocolReason.NOT_JSON


def test_arrays_are_not_written_through_a_link(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    here, there = pair
    (tmp_path / "elsewhere").write_bytes(b"kept")
    (tmp_path / "got").symlink_to(tmp_path / "elsewhere")
    there.sendall(prefix(2, 3) + b"{}abc")
    with pytest.raises(OSError, match="symbolic"):
        read_message(here, LIMITS, tmp_path / "got", time.monotonic() + 120)
    assert (tmp_path / "elsewhere").read_bytes() == b"kept"


def test_the_error_never_quotes_the_sender() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_head(b'{"patient": "secret-name"')
    assert "secret-name" not in str(caught.value)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(lambda rest: MAGIC + rest),
        st.builds(
            lambda head, size, rest: prefix(len(head), size) + head + rest,
            st.one_of(
                st.binary(max_size=60),
                st.recursive(
                    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
                ).map(lambda value: json.dumps(value).encode()),
            ),
            st.integers(0, 100),
            st.binary(max_size=100),
        ),
    )
)
def test_any_bytes_give_a_message_or_a_protocol_error(tmp_path: Path, data: bytes) -> None:
    try:
        got = read_bytes(data, tmp_path)
    except ProtocolError:
        assert not (tmp_path / "arrays").exists()
    else:
        assert isinstance(got.head, dict)
        assert got.arrays_bytes == (got.arrays.stat().st_size if got.arrays else 0)
        (tmp_path / "arrays").unlink(missing_ok=True)
