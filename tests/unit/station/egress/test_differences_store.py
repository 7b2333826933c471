"""What is kept of earlier releases: whom it holds against whom, what it forgets, and that two at once do not miss each other."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from policies.errors import StateError
from policies.refusals import Refused
from station.egress.differencing import differences as module
from station.egress.differencing.comparing import Told, Verdict, metric
from station.egress.differencing.differences import Asker, Differences
from station.egress.differencing.storing import pack_content, pack_patients, unpack
from station.egress.differencing.tables import DifferenceRow, DifferenceSetRow, NumberedPatientRow
from station.storage import Database, open_database

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ASKER = Asker("a" * 64, "An Organisation", "sha256:" + "1" * 64)
EVERYBODY = [f"P{number:03}" for number in range(100)]


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "station.db")
    yield opened
    opened.close()


@pytest.fixture
def differences(database: Database, clock: Clock) -> Differences:
    return Differences(database, clock)


def of(differences: Differences, patients: list[str], what: str = "auc") -> Told:
    return metric(what, np.sort(differences.numbers(patients)), 10)


def tell(
    database: Database, differences: Differences, verdict: Verdict, asker: Asker = ASKER
) -> Refused | None:
    """What the transaction does that records a release."""
    with database.write() as session:
        refused = differences.settle_in(session, asker, verdict)
        if refused is None:
            differences.note_in(session, asker, verdict)
        return refused


def count(database: Database, table: type) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_of_two_at_once_the_second_is_refused(database: Database, differences: Differences) -> None:
    everybody, but_one = of(differences, EVERYBODY), of(differences, EVERYBODY[1:])
    first, second = differences.judge(ASKER, [everybody]), differences.judge(ASKER, [but_one])
    assert (first.left_out, second.left_out) == ({}, {}), "nothing was told when they were asked"
    assert tell(database, differences, first) is None
    refused = tell(database, differences, second)
    assert refused is not None
    assert refused.code == "RELEASE_DIFFERENCE"
    assert differences.judge(ASKER, [but_one]).left_out.keys() == {"auc"}


def test_many_threads_tell_one_of_what_excludes_each_other(
    database: Database, differences: Differences
) -> None:
    told = [of(differences, EVERYBODY[:missing] + EVERYBODY[missing + 1 :]) for missing in range(8)]
    ready = threading.Barrier(len(told))
    outcomes: list[Refused | None] = []

    def one(mine: Told) -> None:
        verdict = differences.judge(ASKER, [mine])
        ready.wait(60)
        outcomes.append(tell(database, differences, verdict))

    threads = [threading.Thread(target=one, args=(mine,)) for mine in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(outcomes) == len(told)
    assert outcomes.count(None) == 1


def test_figures_of_one_release_are_held_against_each_other(differences: Differences) -> None:
    verdict = differences.judge(
        ASKER, [of(differences, EVERYBODY), of(differences, EVERYBODY[1:], "f1"), of(differences, EVERYBODY, "npv")]
    )  # fmt: skip
    assert verdict.left_out.keys() == {"f1"}
    assert [told.what for told in verdict.told] == ["auc", "npv"]


def test_the_same_again_takes_no_room(database: Database, differences: Differences, clock: Clock) -> None:
    for day in range(5):
        clock.now = NOW + timedelta(days=day)
        verdict = differences.judge(ASKER, [of(differences, EVERYBODY), of(differences, EVERYBODY, "f1")])
        assert tell(database, differences, verdict) is None
    assert count(database, DifferenceRow) == 1
    assert count(database, DifferenceSetRow) == 2


def test_everyone_is_one_where_the_hospital_says_so(database: Database, clock: Clock) -> None:
    other = Asker("b" * 64, "Another Organisation", "sha256:" + "2" * 64)
    each, all_ = Differences(database, clock), Differences(database, clock, everyone=True)
    tell(database, each, each.judge(ASKER, [of(each, EVERYBODY)]))
    but_one = of(each, EVERYBODY[1:])
    assert each.judge(other, [but_one]).left_out == {}
    assert all_.judge(other, [but_one]).left_out.keys() == {"auc"}


def test_a_term_and_a_patient_of_whom_nothing_is_here(
    database: Database, differences: Differences, clock: Clock
) -> None:
    notes: list[tuple[int, int]] = []

    def note(_: object, figures: int, pseudonyms: int) -> None:
        notes.append((figures, pseudonyms))

    tell(database, differences, differences.judge(ASKER, [of(differences, EVERYBODY)]))
    here = set(EVERYBODY)
    assert differences.forget(None, lambda _: here, note) == (0, 0)
    here.discard("P007")
    assert differences.forget(None, lambda _: here, note) == (0, 1)
    with database.read() as session:
        assert "P007" not in set(session.scalars(select(NumberedPatientRow.patient)))
    # The set is what it was: all but that one are still all but one.
    without = of(differences, [name for name in EVERYBODY if name != "P007"])
    assert differences.judge(ASKER, [without]).left_out.keys() == {"auc"}
    # Who comes back is somebody else here, so a figure of all is one of others.
    assert differences.judge(ASKER, [of(differences, EVERYBODY)]).left_out.keys() == {"auc"}

    clock.now += timedelta(days=400)
    assert differences.forget(clock.now - timedelta(days=366), lambda _: here, note)[0] == 1
    assert (count(database, DifferenceRow), count(database, DifferenceSetRow)) == (0, 0)
    assert count(database, NumberedPatientRow) == 0, "nobody is in a set that is left"
    assert differences.judge(ASKER, [without]).left_out == {}
    assert notes[0] == (0, 1)


def test_with_more_earlier_figures_than_can_be_compared_nothing_passes(
    database: Database, differences: Differences, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(database, differences, differences.judge(ASKER, [of(differences, EVERYBODY)]))
    monkeypatch.setattr(module, "MOST_COMPARED", 0)
    assert differences.judge(ASKER, [of(differences, EVERYBODY)]).left_out.keys() == {"auc"}


def test_what_was_told_is_changed_by_nobody(database: Database, differences: Differences) -> None:
    tell(database, differences, differences.judge(ASKER, [of(differences, EVERYBODY)]))
    for change in (
        "UPDATE differences SET minimum = 1",
        "UPDATE differences SET organisation = 'x'",
        "UPDATE difference_sets SET content = x''",
        "UPDATE difference_patients SET patient = 'other'",
        "UPDATE difference_patients SET number = number + 1000",
    ):
        with pytest.raises(IntegrityError), database.write() as session:
            session.execute(text(change))


def test_sets_are_read_back_as_they_were_and_damage_is_named(differences: Differences) -> None:
    numbers = np.sort(differences.numbers(EVERYBODY))
    cells = np.arange(100, dtype=np.int32) % 7 - 1
    told = Told("sums", "sum", 5, numbers, (cells, cells[::-1].copy()), np.linspace(0, 1, 100))
    patients, content = pack_patients(told)[1], pack_content(told)[1]
    back = unpack(("sums", "sum", 5), patients, content)
    assert (back.patients == told.patients).all()
    assert all((mine == other).all() for mine, other in zip(back.parts, told.parts, strict=True))
    assert back.values is not None
    assert told.values is not None
    assert (back.values == told.values).all()
    for broken in (content[:-1], content[:5], b"", b"x" * 40):
        with pytest.raises(StateError):
            unpack(("sums", "sum", 5), patients, broken)
    with pytest.raises(StateError):
        unpack(("sums", "other", 5), patients, content)
