"""The agent's durable memory: what is kept is there after a crash; what is damaged is dropped, never raised."""

from pathlib import Path

import pytest

from policies.errors import StateError
from station.agent.messages import Answer, IncomingMessage
from station.agent.spool import MAX_MESSAGES, Spool


def _message(number: int = 1, run_id: int = 2**63 + 5) -> IncomingMessage:
    return IncomingMessage(run_id, f"{number:064x}", b"body", b"\x00arrays", b"address", 1e12)


def test_messages_and_answers_survive(tmp_path: Path) -> None:
    first, second = _message(1), _message(2)
    spool = Spool(tmp_path)
    spool.keep(first)
    spool.keep(second)
    answer = Answer(b"address", b"reply", None, 12.5)
    spool.keep_answer(second, answer)
    found = {entry.message.message_id: entry for entry in Spool(tmp_path).waiting()}
    assert found[first.message_id].message == first
    assert found[first.message_id].answer is None
    assert found[second.message_id].answer == answer
    spool.forget(first)
    spool.forget(first)
    assert [entry.message for entry in Spool(tmp_path).waiting()] == [second]


def test_a_damaged_message_is_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.keep(_message(1))
    spool.keep(_message(2))
    path = tmp_path / "messages" / f"{2**63 + 5}-{1:064x}.json"
    path.write_bytes(path.read_bytes()[:-20])
    assert [entry.message for entry in spool.waiting()] == [_message(2)]
    assert not path.exists()


@pytest.mark.parametrize("message_id", ["../../etc/passwd", "", "A" * 64, "0" * 63])
def test_a_message_id_is_no_path(tmp_path: Path, message_id: str) -> None:
    with pytest.raises(StateError):
        Spool(tmp_path).keep(IncomingMessage(1, message_id, b"", None, b"", 0.0))


def test_what_a_crash_left_half_written_is_cleared(tmp_path: Path) -> None:
    Spool(tmp_path)
    left = tmp_path / "messages" / ".half.json.x1"
    left.write_bytes(b"{")
    Spool(tmp_path)
    assert not left.exists()


def test_a_full_spool_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(MAX_MESSAGES):
        (tmp_path / "messages" / f"1-{number:064x}.json").touch()
    assert spool.is_full()


def test_the_state_is_empty_when_missing_or_damaged(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.read_state() == {}
    spool.write_state({"node_id": 7})
    assert spool.read_state() == {"node_id": 7}
    (tmp_path / "agent.json").write_bytes(b"[1")
    assert spool.read_state() == {}
