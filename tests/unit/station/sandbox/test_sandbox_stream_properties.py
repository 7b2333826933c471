"""Whatever bytes arrive on the socket: an answer, or one of the closed list of ends; in bounded time and memory.

A real socket, the real session and the real readers of frames, heads and arrays; only the launcher is simulated.
"""

import contextlib
import json
import socket
import struct
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_sandbox_session import ThreadLauncher

from policies.errors import WireError
from policies.wire.arrays import ArrayLayout, ArrayLimits, read_layout
from policies.wire.frames import FrameLimits, Pace, read_message
from policies.wire.heads import ProtocolError, parse_head
from station.sandbox.session import TrainSession
from station.sandbox.spec import (
    MIB,
    ContainerSpec,
    ContainerStatus,
    ExitClass,
    ReplyLimits,
    StartedContainer,
    TrainFailure,
    TrainReply,
    TrainRequest,
)

SHARED = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
NOT_SOON_S = 300.0
HEAD_BYTES, ARRAYS_BYTES = 4096, 8192
CEILING = 64 * HEAD_BYTES + 2 * MIB
"""What an exchange may cost: 64 bytes for each of a head's, the reader's one chunk, and the session itself."""

SPEC = ContainerSpec(
    run_id="run-1",
    image_config_digest="sha256:" + "a" * 64,
    cohort_dir="/nowhere/cohort",
    control_dir="/nowhere/control",
    memory_bytes=1 << 29,
    cpus=1.0,
    wall_clock_s=60,
)
STARTED = StartedContainer.model_construct(run_id="run-1", container_id="", image_id="", uid=0)


class GoneLauncher(ThreadLauncher):
    """Its container has ended as soon as anybody looks."""

    def __init__(self) -> None:
        super().__init__(None, exit_=ContainerStatus(run_id="run-1", state="exited", exit_code=1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
reply_heads = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["reply", "hello", "finish"]),
        "id": st.sampled_from([1, 1, 1, 0, 2, True, "1"]),
        "metrics": json_values,
        "rows": json_values,
        "error": st.none() | st.sampled_from(["NO_DATA", "UNCAUGHT", "no", ""]) | st.text(max_size=5),
    },
    optional={"more": json_values},
).map(lambda head: json.dumps(head).encode())
heads = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    reply_heads,
    st.integers(1, 4000).map(lambda deep: b"[" * deep),
    st.integers(1, 4000).map(lambda digits: b'{"a":' + b"9" * digits + b"}"),
    st.integers(1, 500).map(lambda wide: b'{"a":[' + b"{}," * wide + b"{}]}"),
)
tensors = st.dictionaries(
    st.text(min_size=1, max_size=6) | st.sampled_from(["w", "__metadata__"]),
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "U8", "BF16", "F8_E4M3", "", "f32"]) | json_values,
            "shape": st.lists(st.integers(-2, 1 << 62), max_size=10) | json_values,
            "data_offsets": st.lists(st.integers(-8, 1 << 62), max_size=3) | json_values,
        }
    )
    | json_values,
    max_size=4,
)


def _file(header: bytes, length: int | None, data: bytes) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


files = st.one_of(
    st.binary(max_size=400),
    st.builds(
        _file,
        tensors.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200),
        st.none() | st.integers(0, (1 << 64) - 1),
        st.binary(max_size=100),
    ),
)
lengths = st.none() | st.integers(0, (1 << 32) - 1)


def _message(
    head: bytes, arrays: bytes, said_head: int | None, said_arrays: int | None, magic: bytes
) -> bytes:
    first = len(head) if said_head is None else said_head
    second = len(arrays) if said_arrays is None else said_arrays
    return struct.pack(">4sIQ", magic, first, second) + head + arrays


messages = st.builds(
    _message, heads, st.just(b"") | files, lengths, lengths, st.sampled_from([b"PHT1"] * 5 + [b"PHT2"])
)
streams = st.one_of(
    st.binary(max_size=600), messages, st.lists(messages, min_size=2, max_size=3).map(b"".join)
)
FORKED = _message(b'{"type":"reply","id":1,"metrics":{},"rows":{},"error":null}', b"", None, None, b"PHT1")


def exchange(data: bytes, folder: Path, *, split: int) -> TrainReply | TrainFailure:
    """Ask a train that sends these bytes in two pieces, whatever it is asked, and hangs up."""
    here, there = socket.socketpair()

    def answer() -> None:
        with there, contextlib.suppress(OSError):
            there.recv(1)
            there.sendall(data[:split])
            there.sendall(data[split:])
            there.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=answer)
    with here:
        launcher: Any = GoneLauncher()
        session = TrainSession(launcher, SPEC, STARTED, here)
        sender.start()
        try:
            limits = ReplyLimits(folder / "reply", ARRAYS_BYTES, HEAD_BYTES)
            return session.exchange(TrainRequest("train", 1), limits, NOT_SOON_S)
        finally:
            here.close()
            sender.join()


@settings(SHARED, max_examples=250)
@example(FORKED, 3)
@example(FORKED + b"x", 0)
@given(streams, st.integers(0, 40))
def test_any_stream_is_an_answer_or_one_of_the_ends(tmp_path: Path, data: bytes, split: int) -> None:
    outcome = exchange(data, tmp_path, split=split)
    stored = tmp_path / "reply"
    if isinstance(outcome, TrainReply):
        assert (outcome.arrays is None) == (not stored.exists())
        assert outcome.arrays_bytes <= ARRAYS_BYTES
        stored.unlink(missing_ok=True)
    else:
        assert outcome.exit_class in set(ExitClass)
        assert not stored.exists()


@settings(SHARED, max_examples=150)
@given(streams, st.integers(0, 40))
def test_no_stream_costs_more_memory_than_its_ceiling(tmp_path: Path, data: bytes, split: int) -> None:
    tracemalloc.start()
    try:
        exchange(data, tmp_path, split=split)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        (tmp_path / "reply").unlink(missing_ok=True)
    assert peak < CEILING


@pytest.mark.parametrize(
    "head",
    [
        b'{"a":[' + b"{}," * 340_000 + b"{}]}",
        b'{"a":[' + b"[]," * 340_000 + b"[]]}",
        b'{"a":[' + b'{"":0},' * 140_000 + b"{}]}",
        b"{" + b",".join(b'"%x":0' % number for number in range(100_000)) + b"}",
        b'{"a":' + b"[" * 1_000_000,
        b'{"a":"' + "\N{GRINNING FACE}".encode() + b"x" * 1_000_000 + b'"}',
    ],
    ids=["objects", "lists", "pairs", "keys", "deep", "wide-text"],
)
def test_the_most_costly_heads_cost_64_bytes_a_byte(head: bytes) -> None:
    assert len(head) <= MIB
    tracemalloc.start()
    try:
        with contextlib.suppress(ProtocolError):
            parse_head(head)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * len(head)


@settings(SHARED, max_examples=250)
@given(files)
def test_any_file_of_arrays_is_a_layout_or_a_wire_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "arrays"
    path.write_bytes(data)
    found = layout_of(path)
    if isinstance(found, ArrayLayout):
        assert found.file_bytes == len(data)
        assert len(found.entries) <= 3
    else:
        assert found.startswith("arrays: ")


def layout_of(path: Path) -> ArrayLayout | str:
    """What lies where, or what is wrong with it."""
    try:
        return read_layout(path, ArrayLimits(max_bytes=ARRAYS_BYTES, max_header_bytes=2048, max_tensors=3))
    except WireError as error:
        return str(error)


@settings(SHARED, max_examples=60)
@given(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=10))
def test_a_stream_that_stops_in_the_middle_ends_by_its_pace(tmp_path: Path, pieces: list[bytes]) -> None:
    """Nobody hangs up here: what ends the wait is the rate, long before the deadline."""
    here, there = socket.socketpair()
    with here, there:
        there.sendall(struct.pack(">4sIQ", b"PHT1", 4000, 0) + b"".join(pieces))
        began = time.monotonic()
        with pytest.raises(ProtocolError):
            read_message(
                here,
                FrameLimits(HEAD_BYTES, 0, Pace(bytes_per_s=1 << 20, grace_s=0.01)),
                tmp_path / "reply",
                began + NOT_SOON_S,
            )
        assert time.monotonic() - began < NOT_SOON_S / 2
