"""Heartbeats and polls: an entry of the ledger covers each before it leaves, and where it cannot be written none leaves."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from policies.errors import StorageError
from policies.refusals import Permitted
from station.agent.announced import AnnouncedConnection
from station.egress.records.calls import Call, CallLedger
from station.egress.records.ledger import EgressLedger, MessageType, verify_ledger
from station.storage import Database, open_database

START = datetime(2026, 11, 22, 12, 50, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class Node:
    """A connection that remembers what was asked of it, and how many entries stood when it was."""

    url, node_id = "https://orchestrator.example", 7

    def __init__(self, ledger: EgressLedger) -> None:
        self.ledger, self.made = ledger, []  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        def call(*_: object) -> None:
            self.made.append((name, len(self.ledger.entries())))

        return call


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path / "station.db")


def test_one_entry_an_hour_before_the_first_call(database: Database) -> None:
    ledger, clock = EgressLedger(database), Clock()
    node = Node(ledger)
    connection = AnnouncedConnection(node, CallLedger(ledger, clock))
    for _ in range(3):
        connection.heartbeat()
        connection.poll()
    assert {entries for _, entries in node.made} == {1}, "there before each"
    clock.now += timedelta(minutes=15)
    connection.run_is_over(1)
    connection.activate()
    connection.confirm(None)  # type: ignore[arg-type]
    first, second = [stored.entry for stored in ledger.entries()]
    assert first.type is second.type is MessageType.HEARTBEAT
    assert (first.hour, second.hour) == (START.replace(minute=0), START.replace(hour=13, minute=0))
    assert (first.calls_before, second.calls_before) == ({}, {"heartbeat": 3, "poll": 3})
    assert isinstance(verify_ledger(database), Permitted)


def test_a_call_that_cannot_be_entered_is_not_made(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = EgressLedger(database)
    node = Node(ledger)
    connection = AnnouncedConnection(node, CallLedger(ledger, Clock()))

    def full(_: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "append", full)
        for call in (connection.heartbeat, connection.poll, connection.activate):
            with pytest.raises(StorageError):
                call()
    assert node.made == []
    connection.heartbeat()
    assert len(ledger.entries()) == 1


def test_a_clock_that_went_back_is_covered_too(database: Database) -> None:
    ledger, clock = EgressLedger(database), Clock()
    calls = CallLedger(ledger, clock)
    calls.announce(Call.POLL)
    clock.now -= timedelta(hours=5)
    calls.announce(Call.POLL)
    assert [stored.entry.hour for stored in ledger.entries()] == [
        START.replace(minute=0),
        START.replace(hour=7, minute=0),
    ]
