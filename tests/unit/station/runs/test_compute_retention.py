"""Compute's terms: cohorts that nobody holds, arrays of spent orders, backups; nothing that may be asked for again."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from egress_documents import ORDER
from egress_station import Records, guarded

from policies.errors import StateError
from station.audit import AuditEvent
from station.egress.records.releases import Recorded
from station.retention import EVERY, ComputeRetention, ComputeTerms, Places
from station.runs import RunEvent, RunRepository

TERMS = ComputeTerms(cohorts=timedelta(days=30), released=timedelta(days=10), backups=timedelta(days=5))


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records.open(tmp_path)


@pytest.fixture
def held() -> set[Path]:
    return set()


@pytest.fixture
def retention(records: Records, tmp_path: Path, held: set[Path], clock: Clock) -> ComputeRetention:
    places = Places(tmp_path / "cohorts", tmp_path / "releases", tmp_path / "backups")
    return ComputeRetention(records.database, records.audit, places, TERMS, lambda: held, clock)


def cohort(tmp_path: Path, name: str) -> Path:
    data = tmp_path / "cohorts" / name / "data"
    data.mkdir(parents=True)
    (data / "cohort.json").write_bytes(b"{}")
    data.chmod(0o500)
    return data


def swept(records: Records) -> list[dict[str, int]]:
    events = [event.record for event in records.audit.events()]
    return [dict(event.numbers) for event in events if event.event is AuditEvent.RETENTION_ENFORCED]


def test_a_cohort_goes_only_when_no_run_holds_it(
    retention: ComputeRetention, records: Records, tmp_path: Path, held: set[Path], clock: Clock
) -> None:
    idle, busy = cohort(tmp_path, "idle"), cohort(tmp_path, "busy")
    held.add(busy)
    clock.now += timedelta(days=29)
    assert retention.look() == 0
    clock.now += timedelta(days=2)
    assert retention.look() == 1
    assert (idle.exists(), busy.exists()) == (False, True)
    assert swept(records) == [{"cohorts": 1, "released": 0, "backups": 0}]


def test_released_arrays_stay_while_their_order_may_ask_again(
    retention: ComputeRetention, records: Records, tmp_path: Path, clock: Clock
) -> None:
    stored = records.record(guarded(tmp_path))
    assert isinstance(stored, Recorded)
    arrays = stored.release.arrays
    assert arrays is not None
    clock.now += timedelta(days=400)
    assert retention.look() == 0
    assert records.store.find(ORDER, 1, "train") == stored.release

    RunRepository(records.database, records.audit, clock=clock).transition(ORDER, RunEvent.STOP)
    clock.now += timedelta(days=9)
    assert retention.look() == 0
    clock.now += timedelta(days=1, hours=1)
    assert retention.look() == 1
    assert not arrays.exists()
    with pytest.raises(StateError):
        records.store.find(ORDER, 1, "train")
    # What was said stays on record.
    assert len(records.store.list(ORDER)) == 1
    assert len(list(records.ledger.entries())) == 1
    clock.now += EVERY
    assert retention.look() == 0


def test_backups_have_a_term_and_a_look_is_taken_once_an_hour(
    retention: ComputeRetention, records: Records, tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "backups").mkdir()
    copy = tmp_path / "backups" / "station.db"
    assert retention.look() == 0
    copy.write_bytes(b"copy")
    clock.now += timedelta(minutes=59)
    assert retention.look() == 0
    clock.now += timedelta(days=6)
    assert retention.look() == 1
    assert not copy.exists()
    assert swept(records) == [{"cohorts": 0, "released": 0, "backups": 1}]
