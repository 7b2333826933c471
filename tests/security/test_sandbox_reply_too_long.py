"""Attack: a train answers with more than it may: arrays, metrics, and a length it never delivers."""

import pytest
from sandbox_kit import Station

from station.sandbox.spec import MIB, ExitClass, TrainFailure

pytestmark = pytest.mark.docker

RAW = """
import socket, struct, os
for descriptor in map(int, os.listdir("/proc/self/fd")):
    try:
        sock = socket.socket(fileno=os.dup(descriptor))
        if sock.family == socket.AF_UNIX and sock.getpeername() is not None:
            break
    except OSError:
        pass
"""


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("import numpy as np\narrays['w'] = np.zeros(1 << 20, np.float32)", "arrays-too-large"),
        (RAW + "sock.sendall(struct.pack('>4sIQ', b'PHT1', 2, 1 << 62) + b'{}')", "arrays-too-large"),
        (RAW + "sock.sendall(struct.pack('>4sIQ', b'PHT1', 0xFFFFFFFF, 0))", "head-too-large"),
        (RAW + "sock.sendall(b'HTTP/1.1 200 OK')", "bad-magic"),
    ],
)
def test_a_reply_beyond_its_ceiling_is_not_taken(station: Station, code: str, detail: str) -> None:
    with station.session() as session:
        answer = station.ask(session, code, max_arrays_bytes=MIB)
        assert answer == TrainFailure(ExitClass.PROTOCOL, detail=detail)
        assert not (station.home / "reply.safetensors").exists()
        assert not session.alive


def test_rows_beyond_what_the_runtime_sends_are_an_error_of_the_train(station: Station) -> None:
    with station.session() as session:
        answer = station.ask(session, "rows['t'] = list(range(3_000_000))")
        assert isinstance(answer, TrainFailure)
        assert answer.exit_class is ExitClass.CRASH


def test_rows_beyond_what_the_cohort_can_have_are_not_read(station: Station) -> None:
    with station.session() as session:
        answer = station.ask(session, "rows['t'] = list(range(500_000))")
        assert answer == TrainFailure(ExitClass.PROTOCOL, detail="head-too-large")
