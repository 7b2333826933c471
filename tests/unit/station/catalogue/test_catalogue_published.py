"""The table of counts that is told outside: what an adversary who sees every version of it learns of one patient."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from pathlib import Path

import pytest
from catalogue_log import COLLECTION, NOW, Intake
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.manifest import Modality
from station.catalogue.published import CELLS, Cell, Held, PublishedCounts, PublishedRow, renewed
from station.settings.outside import CountsSettings
from station.storage import Database, open_database

MINIMUM = 10
DRAWS = st.lists(st.integers(0, 9), min_size=40, max_size=40)


def of(draws: list[int]) -> Iterator[int]:
    yield from draws
    while True:
        yield 0


def told(history: list[int], draws: list[int]) -> list[int]:
    """The values of a cell of patients, look after look."""
    supply = of(draws)
    cell, seen = None, []
    for count in history:
        cell = renewed(cell, Held(count, count), MINIMUM, lambda: next(supply))
        seen.append(cell.value)
    return seen


@settings(deadline=None)
@given(st.integers(0, 500), st.lists(st.integers(-1, 1), max_size=60), DRAWS)
def test_single_patients_who_come_and_go_change_nothing(
    start: int, steps: list[int], draws: list[int]
) -> None:
    history, kept = [start], [start]
    for step in steps:
        count = history[-1] + step
        # Any wandering that stays within the minimum difference of where it began.
        history.append(count if count >= 0 and abs(count - start) <= MINIMUM else history[-1])
        kept.append(start)
    first = told([start], draws)
    if first != [0]:
        assert told(history, draws) == first * len(history) == told(kept, draws)


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), min_size=2, max_size=40), DRAWS)
def test_a_change_says_that_more_than_the_minimum_came_or_went(history: list[int], draws: list[int]) -> None:
    supply = of(draws)
    cell = Cell(0, 0, 0)
    for count in history:
        before, cell = cell, renewed(cell, Held(count, count), MINIMUM, lambda: next(supply))
        if cell is before:
            assert abs(count - before.patients) <= MINIMUM + 9
        else:
            assert abs(count - before.patients) > MINIMUM
            assert cell.value % 10 == 0
            assert abs(cell.value - count) < 10 or (cell.value == 0 and count <= MINIMUM + 9)


def up_to_the_first_change(history: list[int], slack: int, up: int, line: int) -> tuple[int, ...]:
    """What is told look after look, until the cell is set for the first time."""
    cell, seen = Cell(history[0] // 10 * 10, history[0], slack), []
    for count in history:
        draws = iter((up, line, 0))
        new = renewed(cell, Held(count, count), MINIMUM, draws.__next__)
        seen.append(new.value)
        if new is not cell:
            break
    return tuple(seen)


@settings(deadline=None, max_examples=60)
@given(st.integers(30, 200), st.lists(st.integers(-12, 12), min_size=1, max_size=25), st.integers(0, 24))
def test_who_knows_everybody_else_hardly_sees_one_patient(start: int, steps: list[int], joins: int) -> None:
    # An adversary who knows everybody else's coming and going compares what is told with, and without, one patient. They do
    # not know the three draws: what they can win is the distance between the two distributions (total variation).
    history = [start]
    for step in steps:
        history.append(max(0, history[-1] + step))
    first = 1 + joins % len(steps)
    other = [count + (look >= first) for look, count in enumerate(history)]
    with_, without = Counter[tuple[int, ...]](), Counter[tuple[int, ...]]()
    for draws in product(range(10), repeat=3):
        without[up_to_the_first_change(history, *draws)] += 1
        with_[up_to_the_first_change(other, *draws)] += 1
    distance = sum(abs(with_[seen] - without[seen]) for seen in {*with_, *without}) / 2
    assert distance <= 300, "of a thousand"


def test_images_move_with_patients_and_not_with_one_patients_images() -> None:
    cell = renewed(None, Held(40, 400), MINIMUM, lambda: 0)
    assert cell == Cell(400, 40, 0)
    assert renewed(cell, Held(41, 4000), MINIMUM, lambda: 0) is cell
    assert renewed(cell, Held(52, 4000), MINIMUM, lambda: 0).value == 4000


@pytest.mark.parametrize("patients", range(MINIMUM + 1))
def test_few_patients_are_none(patients: int) -> None:
    assert renewed(None, Held(patients, 90_000), MINIMUM, lambda: 0).value == 0
    assert renewed(Cell(90_000, 60, 0), Held(patients, 90_000), MINIMUM, lambda: 0).value == 0


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(tmp_path / "handover")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path / "station.db")


def counts(
    database: Database, *collections: str, minimum_difference: int = MINIMUM, every_days: int = 7
) -> PublishedCounts:
    settings = CountsSettings(every_days=every_days, minimum_difference=minimum_difference)
    return PublishedCounts(database, settings, collections or (COLLECTION,), draw=lambda: 0)


def take_up(intake: Intake, database: Database) -> None:
    from station.catalogue import Catalogue

    Catalogue(database, intake.folder, intake.key.public_key()).sync()


def test_the_table_is_fixed_and_durable(intake: Intake, database: Database) -> None:
    intake.instances(*range(25))
    intake.instances(*range(25), modality="CT", sop_instance_uid="2.25.7", study_uid="2.25.8")
    intake.instances(*range(40, 48), modality="CR")
    take_up(intake, database)
    row = PublishedRow(COLLECTION, 30, 30, {Modality.CT: 0, Modality.DX: 20, Modality.CR: 0})
    empty = PublishedRow("none-yet", 0, 0, dict.fromkeys(Modality, 0))
    assert counts(database, "none-yet", COLLECTION).table(NOW) == (row, empty)
    assert set(CELLS) == {"patients", "studies", "CT", "DX", "CR"}
    # The next life of compute tells the same; the day before its time, also after many came.
    intake.instances(*range(100, 160))
    take_up(intake, database)
    assert counts(database).table(NOW + timedelta(days=6, hours=23)) == (row,)
    assert counts(database).table(NOW - timedelta(days=300)) == (row,), (
        "a clock that went back hurries nothing"
    )
    later = counts(database).table(NOW + timedelta(days=7))[0]
    assert (later.patients, later.images[Modality.DX]) == (90, 80)


def test_looking_more_often_shows_no_more(intake: Intake, database: Database) -> None:
    intake.instances(*range(25))
    take_up(intake, database)
    published = counts(database, every_days=1)
    first = published.table(NOW)
    for day in range(1, 9):
        intake.instances(25 + day)
        take_up(intake, database)
        assert published.table(NOW + timedelta(days=day)) == first
    intake.removed(*range(10))
    take_up(intake, database)
    assert published.table(NOW + timedelta(days=9)) == first


def test_the_secret_draws_are_kept_and_drawn_anew(intake: Intake, database: Database) -> None:
    intake.instances(*range(60))
    take_up(intake, database)
    PublishedCounts(database, CountsSettings(), [COLLECTION]).table(NOW)
    from sqlalchemy import select

    from station.catalogue.tables import PublishedCount

    with database.read() as session:
        kept = {
            row.cell: (row.value, row.patients, row.slack) for row in session.scalars(select(PublishedCount))
        }
    assert set(kept) == set(CELLS)
    assert kept["patients"][:2] == (60, 60), "a multiple of ten is told as it is"
    assert all(0 <= slack <= 9 for _, _, slack in kept.values())
