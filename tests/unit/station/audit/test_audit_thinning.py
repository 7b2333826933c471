"""What others can cause without end: so many are written, the rest are counted, and nothing is lost but a crash's hour."""

from pathlib import Path

import pytest

from station.audit import AuditEvent, AuditLog, AuditRecord
from station.audit.thinning import MAX_KINDS, Thinner
from station.storage import Database, open_database


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path / "station.db")


def refused(code: str = "ORDER_INVALID", attempt: int = 1) -> AuditRecord:
    return AuditRecord(
        event=AuditEvent.INSTRUCTION_REFUSED,
        actor="station:compute",
        outcome="refused",
        codes=(code,),
        numbers={"attempt": attempt},
    )


def test_so_many_of_a_kind_and_then_a_count(database: Database) -> None:
    audit, clock = AuditLog(database), Seconds()
    thinned = Thinner(audit, limit=3, period_s=3600, clock=clock)
    for attempt in range(10):
        thinned.append(refused(attempt=attempt))
    thinned.append(refused("ORDER_EXPIRED"))
    assert [event.record.codes[0] for event in audit.events()] == ["ORDER_INVALID"] * 3 + ["ORDER_EXPIRED"]
    thinned.flush()
    assert len(audit.events()) == 4, "the hour is not over"
    clock.now = 3600.0
    thinned.flush()
    last = audit.events()[-1].record
    assert (last.event, last.codes, last.numbers) == (
        AuditEvent.INSTRUCTION_REFUSED,
        ("ORDER_INVALID",),
        {"left_out": 7, "written": 3},
    )
    thinned.append(refused())
    assert audit.events()[-1].record.numbers == {"attempt": 1}, "another hour"


def test_at_the_end_of_a_life_the_count_is_written(database: Database) -> None:
    audit = AuditLog(database)
    thinned = Thinner(audit, limit=1)
    for _ in range(5):
        thinned.append(refused())
    thinned.flush(all_of_it=True)
    assert [event.record.numbers.get("left_out") for event in audit.events()] == [None, 4]
    thinned.flush(all_of_it=True)
    assert len(audit.events()) == 2


def test_inside_a_transaction_it_stands_or_falls_with_it(database: Database) -> None:
    audit = AuditLog(database)
    thinned = Thinner(audit, limit=2)

    def fail() -> None:
        with database.write() as session:
            thinned.append_in(session, refused())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert audit.events() == []


def test_kinds_without_end_are_one_kind(database: Database) -> None:
    audit = AuditLog(database)
    thinned = Thinner(audit, limit=1)
    with database.write() as session:
        for number in range(MAX_KINDS + 50):
            thinned.append_in(session, refused(), about=f"order-{number}")
    assert len(audit.events(limit=10_000)) == MAX_KINDS + 1
