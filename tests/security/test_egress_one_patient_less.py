"""Attack: the same analysis is ordered twice, the second time without one patient; the difference is that patient's finding."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from differences_kit import COUNTED, by_illness, finds, ill, ordered, refused, told, unguarded
from map_runs import map_kit
from station_kit import StationKit

VICTIM = COUNTED[3]


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StationKit]:
    made = map_kit(tmp_path, monkeypatch)
    finds(made, by_illness)
    yield made
    made.close()


def test_a_patient_who_withdrew_is_not_had_by_subtraction(kit: StationKit) -> None:
    everyone = told(ordered(kit))
    kit.intake.consent(**{f"p{VICTIM}": "objection"})
    kit.catalogue.sync()
    assert refused(ordered(kit))

    # The attack, where nobody remembers: one subtraction, and the patient's finding is known.
    unguarded(kit)
    others = told(ordered(kit))
    difference = [before - after for before, after in zip(everyone, others, strict=True)]
    assert difference == [int(ill(VICTIM)), int(not ill(VICTIM)), 0, 0]

    # All but one were told now; when the one is back, all are not.
    kit.intake.consent(p0="consent")
    kit.catalogue.sync()
    assert refused(ordered(kit))


def test_a_patient_whose_image_was_removed_and_a_station_that_started_again(kit: StationKit) -> None:
    told(ordered(kit))
    kit.intake.removed(VICTIM)
    train = kit.sandbox.train
    kit.again()
    kit.sandbox.train = train
    assert refused(ordered(kit))


def test_the_same_patients_again_and_as_many_less_as_the_smallest_cell(kit: StationKit) -> None:
    everyone = told(ordered(kit))
    assert told(ordered(kit)) == everyone
    few = [number for number in COUNTED if ill(number)][:3]
    kit.intake.consent(**{f"p{number}": "objection" for number in few})
    kit.catalogue.sync()
    assert told(ordered(kit)) == [everyone[0] - 3, everyone[1], 0, 0]
