"""Answers that can be asked for without end: each is covered by an entry, and the ledger grows by a bounded number an hour."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from station_kit import StationKit, instruction, order_digest, prepare
from station_simulators import broken_disk

from policies.errors import StorageError
from policies.refusals import Permitted
from policies.wire.instructions import Kind, Status
from station.egress.records.ledger import (
    RULES,
    EgressLedger,
    LedgerEntry,
    MessageType,
    verify_ledger,
)
from station.egress.records.repeats import LIMIT, Repeats
from station.storage import Database, open_database

NOW = datetime(2026, 11, 22, 12, 10, tzinfo=UTC)
ORDER = "sha256:" + "5" * 64


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "station.db")
    yield opened
    opened.close()


def entry(number: int) -> LedgerEntry:
    return LedgerEntry(
        type=MessageType.STATUS, digest="sha256:" + f"{number:064x}", size=300, order_digest=ORDER, round=2
    )


def test_so_many_an_hour_have_entries_of_their_own_and_one_covers_the_rest(database: Database) -> None:
    clock = Clock()
    ledger = EgressLedger(database, clock)
    repeats = Repeats(ledger, clock)
    for number in range(LIMIT + 500):
        repeats.enter("refused", entry(number), code="ORDER_SPENT", about=ORDER)
    entries = [stored.entry for stored in ledger.entries()]
    assert [one.digest for one in entries[:LIMIT]] == [entry(number).digest for number in range(LIMIT)]
    (covering,) = entries[LIMIT:]
    assert (covering.type, covering.order_digest, covering.hour) == (
        MessageType.STATUS, ORDER, NOW.replace(minute=0),
    )  # fmt: skip
    assert covering.rules_digest == RULES[MessageType.STATUS]

    # The next hour says how many there were, and has its own entries again.
    clock.now += timedelta(hours=1)
    repeats.enter("refused", entry(1), code="ORDER_SPENT", about=ORDER)
    counted, own = [stored.entry for stored in ledger.entries(after=LIMIT + 1)]
    assert (counted.hour, counted.calls_before) == (NOW.replace(minute=0), {"refused": 500})
    assert own.digest == entry(1).digest
    repeats.flush()
    assert len(ledger.entries()) == LIMIT + 3, "nothing was left out of the last hour"
    assert isinstance(verify_ledger(database), Permitted)


def test_kinds_do_not_cover_each_other(database: Database) -> None:
    clock = Clock()
    ledger = EgressLedger(database, clock)
    repeats = Repeats(ledger, clock)
    for number in range(2 * LIMIT):
        repeats.enter("refused", entry(number), code="ORDER_SPENT", about=ORDER)
    before = len(ledger.entries())
    repeats.enter("refused", entry(1), code="ORDER_KIND", about=ORDER)
    repeats.enter("pending", entry(2), about=ORDER)
    assert len(ledger.entries()) == before + 2


def test_what_cannot_be_covered_does_not_leave(database: Database) -> None:
    ledger = EgressLedger(database)
    repeats = Repeats(ledger)
    for number in range(LIMIT):
        repeats.enter("refused", entry(number), about=ORDER)
    ledger.append = broken_disk  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(StorageError):
            repeats.enter("refused", entry(1), about=ORDER)


def test_a_station_that_is_asked_without_end(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    unknown, foreign, envelope = kit.order(), kit.order(signer="stranger"), kit.ready()
    released, _ = kit.message(envelope, Kind.EVALUATE)
    before = kit.ledger.head().seq
    for attempt in range(2, 3 * LIMIT):
        again, _ = kit.message(envelope, Kind.EVALUATE, attempt=attempt)
        assert again == released
        for attack in (instruction(unknown, Kind.TRAIN, 1), prepare(foreign)):
            reply, _ = kit.service.handle(attack, None)
            assert reply.status is Status.REFUSED
    entries = [stored.entry for stored in kit.ledger.entries(after=before)]
    assert len(entries) == 3 * (LIMIT + 1)
    assert all(one.rules_digest is not None for one in entries)
    repeated = [one for one in entries if one.type is MessageType.RELEASE]
    first = kit.releases.entry_of(kit.releases.list()[0])
    # The one that covers the hour too says which bytes leave.
    told = {(one.digest, one.size, one.rules_digest, one.repeated) for one in repeated}
    assert told == {(first.digest, first.size, first.rules_digest, True)}
    assert {(one.order_digest, one.round, one.stage) for one in repeated} == {
        (order_digest(envelope), 1, "evaluate")
    }
    assert isinstance(verify_ledger(kit.database), Permitted)
    kit.close()
