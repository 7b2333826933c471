"""Compute's terms: cohorts that nobody holds, arrays of spent orders, backups; nothing that may be asked for again."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from egress_documents import ORDER
from egress_station import Records, guarded
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from policies.documents import digest_of
from policies.errors import StorageError
from station.audit import AuditEvent
from station.egress.records.releases import Recorded
from station.retention import EVERY, ComputeRetention, ComputeTerms, Places

TERMS = ComputeTerms(cohorts=timedelta(days=30), released=timedelta(days=10), backups=timedelta(days=5))


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = self.began = datetime.now(UTC)
        self.leapt = timedelta(0)

    def monotonic(self) -> float:
        return (self.now - self.began - self.leapt).total_seconds()

    def leap(self, by: timedelta) -> None:
        """The wall clock alone moves."""
        self.now += by
        self.leapt += by

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
    return ComputeRetention(
        records.database, records.audit, places, TERMS, lambda: held, clock, monotonic=clock.monotonic
    )


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


def test_what_was_released_stays_for_its_term_and_then_its_digests_do(
    retention: ComputeRetention, records: Records, tmp_path: Path, clock: Clock
) -> None:
    stored = records.record(guarded(tmp_path))
    assert isinstance(stored, Recorded)
    arrays = stored.release.arrays
    assert arrays is not None
    clock.now += timedelta(days=9)
    assert retention.look() == 0
    assert records.store.find(ORDER, 1, "train") == stored.release

    clock.now += timedelta(days=1, hours=1)
    assert retention.look() == 1
    assert swept(records) == [{"cohorts": 0, "released": 1, "backups": 0}]
    assert not arrays.exists()
    purged = records.store.find(ORDER, 1, "train")
    assert purged is not None
    assert (purged.reply, purged.arrays, purged.purged) == (b"", None, clock.now)
    # What was said stays on record.
    entry = records.store.entry_of(purged)
    assert (entry.digest, entry.size) == (digest_of(stored.release.reply), len(stored.release.reply))
    assert (purged.arrays_digest, purged.arrays_size) == (
        stored.release.arrays_digest,
        stored.release.arrays_size,
    )
    assert records.store.releases_used(purged.policy_id) == 1
    clock.now += EVERY
    assert retention.look() == 0
    # It is not made again: the answer stands, without its bytes.
    again = records.record(guarded(tmp_path))
    assert isinstance(again, Recorded)
    assert (again.repeated, again.release.reply) == (True, b"")


def test_a_release_is_changed_in_no_other_way(records: Records, tmp_path: Path) -> None:
    records.record(guarded(tmp_path))
    for change in (
        "UPDATE releases SET reply = x'00'",
        "UPDATE releases SET reply = x''",
        "UPDATE releases SET purged = 'now', reply = x'', arrays_digest = 'sha256:0'",
        "UPDATE releases SET purged = 'now', reply = x'', examples = 9",
        "UPDATE releases SET purged = 'now'",
    ):
        with pytest.raises(IntegrityError), records.database.write() as session:
            session.execute(text(change))
    with records.database.write() as session:
        session.execute(text("UPDATE releases SET purged = '2026-11-22T12:00:00.000000Z', reply = x''"))
    with pytest.raises(IntegrityError), records.database.write() as session:
        session.execute(text("UPDATE releases SET purged = NULL, reply = x''"))


def test_what_a_crash_left_of_a_purge_goes_at_the_next_start(
    retention: ComputeRetention, records: Records, tmp_path: Path, clock: Clock
) -> None:
    stored = records.record(guarded(tmp_path))
    assert isinstance(stored, Recorded)
    arrays = stored.release.arrays
    assert arrays is not None
    data = arrays.read_bytes()
    clock.now += timedelta(days=11)
    retention.look()
    arrays.write_bytes(data)
    assert records.store.sweep() == 1
    assert not arrays.exists()


def test_arrays_that_could_not_be_removed_go_with_a_later_look(
    retention: ComputeRetention, records: Records, tmp_path: Path, clock: Clock
) -> None:
    arrays = []
    for round_ in (1, 2, 3):
        stored = records.record(guarded(tmp_path, round_))
        assert isinstance(stored, Recorded)
        assert stored.release.arrays is not None
        arrays.append(stored.release.arrays)
    # Where the second one was there is what no unlink removes.
    stuck = sorted(arrays)[1]
    stuck.unlink()
    stuck.mkdir()
    clock.now += timedelta(days=11)
    with pytest.raises(StorageError):
        retention.look()
    assert sorted((tmp_path / "releases").iterdir()) == [stuck], "those after it went"
    stuck.rmdir()
    stuck.write_bytes(b"what could not be removed")
    # Everything is purged already; no start of compute is needed.
    assert retention.look() == 0
    assert list((tmp_path / "releases").iterdir()) == []
    assert swept(records) == [{"cohorts": 0, "released": 3, "backups": 0}]


def test_what_a_leaping_clock_calls_over_stays_until_the_leap_has_stood(
    retention: ComputeRetention, records: Records, tmp_path: Path, clock: Clock
) -> None:
    stored = records.record(guarded(tmp_path))
    assert isinstance(stored, Recorded)
    assert retention.look() == 0
    clock.now += EVERY
    clock.leap(timedelta(days=400))
    assert retention.look() == 0
    clock.now += timedelta(minutes=50)
    assert retention.look() == 0
    # Set right again: nothing was lost.
    clock.leap(timedelta(days=-400))
    clock.now += EVERY
    assert retention.look() == 0
    assert records.store.find(ORDER, 1, "train") == stored.release
    # One that stands is believed.
    clock.leap(timedelta(days=400))
    assert retention.look() == 0
    clock.now += EVERY
    assert retention.look() == 1
    assert not list((tmp_path / "releases").iterdir())


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
