"""The log of finished rounds: appended, never rewritten; read on from where a reader stopped; a torn line is not there."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.federation import round_log
from orchestrator.federation.round_log import RoundLog


def entry(number: int, width: int = 1) -> dict[str, Any]:
    return {"round": number, "train": {f"hospital-{one}": {"loss": 1.0} for one in range(width)}}


@pytest.fixture
def log(tmp_path: Path) -> RoundLog:
    return RoundLog(tmp_path / "rounds.jsonl")


def test_rounds_come_back_in_order(log: RoundLog) -> None:
    assert (log.count(), log.read()) == (0, [])
    for number in (1, 2, 3):
        log.append(entry(number), number)
    assert log.count() == 3
    assert log.read() == [entry(1), entry(2), entry(3)]
    assert log.read(after=2) == [entry(3)]
    assert log.read(after=3) == []


def test_a_round_is_written_once_and_read_once(log: RoundLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thousand rounds of a hundred stations cost is linear in them: no line is parsed twice to count."""
    parsed: list[int] = []
    loads = json.loads
    monkeypatch.setattr(round_log.json, "loads", lambda text: (parsed.append(len(text)), loads(text))[1])
    for number in range(1, 101):
        before = log.path.stat() if number > 1 else None
        log.append(entry(number, width=20), number)
        if before is not None:
            assert log.path.stat().st_ino == before.st_ino
        for _ in range(3):
            assert log.count() == number
    assert sum(parsed) == log.path.stat().st_size
    parsed.clear()
    assert [each["round"] for each in log.read(after=99)] == [100]
    assert len(parsed) == 1


def test_a_line_that_was_cut_off_is_not_there_and_the_next_takes_its_place(log: RoundLog) -> None:
    log.append(entry(1), 1)
    log.append(entry(2), 2)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-5])
    assert log.read() == [entry(1)]
    log.append(entry(2), 2)
    assert log.path.read_bytes() == whole
    # What the power left of a block: zeros, and a line's end.
    log.path.write_bytes(whole + bytes(30) + b"\n")
    assert log.count() == 2
    log.append(entry(3), 3)
    assert log.read(after=2) == [entry(3)]


def test_a_round_that_is_done_again_replaces_itself_and_what_followed(log: RoundLog) -> None:
    for number in (1, 2, 3):
        log.append(entry(number), number)
    log.append({"round": 2, "again": True}, 2)
    assert log.read() == [entry(1), {"round": 2, "again": True}]


def test_a_file_that_was_replaced_is_read_anew(log: RoundLog) -> None:
    for number in (1, 2):
        log.append(entry(number), number)
    assert log.count() == 2
    other = log.path.with_name("other")
    other.write_text(json.dumps(entry(7, width=50)) + "\n")
    other.replace(log.path)
    assert log.read() == [entry(7, width=50)]
    log.path.unlink()
    assert log.read() == []


def test_a_reader_takes_as_much_as_it_can_carry_and_at_least_one(log: RoundLog) -> None:
    for number in range(1, 6):
        log.append(entry(number, width=10), number)
    line = len(log.path.read_bytes()) // 5
    assert [each["round"] for each in log.read(after=1, at_most_bytes=2 * line)] == [2, 3]
    assert [each["round"] for each in log.read(after=1, at_most_bytes=1)] == [2]


@given(cuts=st.lists(st.integers(0, 200), max_size=8))
@settings(max_examples=60)
def test_whatever_is_cut_off_what_is_read_is_a_beginning(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    log = RoundLog(tmp_path_factory.mktemp("log") / "rounds.jsonl")
    for cut in cuts:
        log.append(entry(log.count() + 1), log.count() + 1)
        data = log.path.read_bytes()
        log.path.write_bytes(data[: len(data) - cut] if cut else data)
        found = log.read()
        assert found == [entry(number) for number in range(1, len(found) + 1)]
        assert len(found) == log.count()
