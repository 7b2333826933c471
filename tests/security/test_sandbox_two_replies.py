"""Attack: a train answers one request twice, or before it is asked, to smuggle out a message nobody expects."""

import pytest
from sandbox_kit import Station

from station.sandbox.spec import ExitClass, TrainFailure, TrainReply

pytestmark = pytest.mark.docker

RAW = """
import socket, struct, os, json
for descriptor in map(int, os.listdir("/proc/self/fd")):
    try:
        sock = socket.socket(fileno=os.dup(descriptor))
        if sock.family == socket.AF_UNIX and sock.getpeername() is not None:
            break
    except OSError:
        pass

def reply(number):
    head = json.dumps({"type": "reply", "id": number, "metrics": {}, "rows": {}, "error": None}).encode()
    sock.sendall(struct.pack(">4sIQ", b"PHT1", len(head), 0) + head)
"""


def test_two_replies_at_once_end_the_session(station: Station) -> None:
    with station.session() as session:
        answer = station.ask(session, RAW + "reply(1); reply(1)")
        if isinstance(answer, TrainReply):  # the second was not there yet when the first was read
            answer = station.ask(session, "")
        assert isinstance(answer, TrainFailure)
        assert answer.exit_class is ExitClass.PROTOCOL
        assert answer.session_ended


def test_a_reply_to_another_request_ends_the_session(station: Station) -> None:
    with station.session() as session:
        answer = station.ask(session, RAW + "reply(2)")
        assert answer == TrainFailure(ExitClass.PROTOCOL, detail="it answered another request")


def test_a_second_connection_is_not_served(station: Station) -> None:
    code = """
import socket
try:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(3)
        sock.connect("/train/control/train.sock")
        sock.sendall(b"x")
        found = "connected"
except OSError:
    found = "refused"
"""
    with station.session() as session:
        assert station.find(session, code) == "refused"
