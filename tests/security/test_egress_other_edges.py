"""Attack: the same patients are counted again with the edge between two bins moved past one of them, under other bins."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from differences_kit import COUNTED, finds, ordered, told, unguarded
from map_runs import map_kit
from station_kit import StationKit

VICTIM = next(number for number in COUNTED if number % 2 == 1)


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StationKit]:
    made = map_kit(tmp_path, monkeypatch)
    yield made
    made.close()


def test_one_patient_on_the_other_side_of_an_edge(kit: StationKit) -> None:
    finds(kit, lambda found: 0.1 if found else 0.3)
    first = told(ordered(kit))
    # Which bin stands for which finding is the train's choice: turned round it tells the same, and merged it tells less.
    finds(kit, lambda found: 0.9 if found else 0.1)
    second = told(ordered(kit))
    assert (first[0], first[1]) == (second[2], second[0])
    finds(kit, lambda _: 0.1)
    assert told(ordered(kit))[0] == len(COUNTED)

    # One patient falls on the other side now; by which name the sides go changes nothing.
    kit.intake.clinical(VICTIM, pneumonia=0)
    kit.catalogue.sync()
    finds(kit, lambda found: 0.9 if found else 0.1)
    reply = ordered(kit)
    assert "lung_shares" not in reply.tables
    assert reply.tables, "what is as it was is told again"

    unguarded(kit)
    third = told(ordered(kit))
    assert [before - after for before, after in zip(second, third, strict=True)] == [-1, 0, 1, 0]
