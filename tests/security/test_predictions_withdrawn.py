"""Attack: keep what was marked in the images of who withdrew, whenever the withdrawal comes; or under a policy that is gone."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from catalogue_log import patient
from prediction_kit import Marks, file_of, keeper, kept, marks, one_round, predicting_station, settled
from station_kit import StationKit
from station_simulators import Answered

from policies.errors import StorageError
from policies.wire.instructions import Kind
from station.predictions.folder import PredictionFolder


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StationKit]:
    made = predicting_station(tmp_path, monkeypatch)
    yield made
    made.close()


def patients(kit: StationKit) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in kept(kit):
        found.setdefault(str(pydicom.dcmread(path, stop_before_pixels=True).PatientID), []).append(path)
    return found


def number_of(name: str) -> int:
    return next(number for number in range(40) if patient(number) == name)


def taken_up(kit: StationKit) -> None:
    """What the station does every few seconds."""
    kit.catalogue.sync()
    kit.warm.withdraw(kit.gatekeeper.consenting)
    if kit.predictions is not None:
        keeper(kit).look()


def test_a_withdrawal_takes_that_patients_and_no_others(kit: StationKit) -> None:
    one_round(kit)
    before = patients(kit)
    gone, *others = sorted(before)
    kit.intake.consent(**{f"p{number_of(gone)}": "objection"})
    taken_up(kit)
    assert patients(kit) == {name: before[name] for name in others}
    assert kit.events()[-1] == "predictions-removed"
    assert sum(row.removed for row in kit.book.by_run()) == len(before[gone])
    taken_up(kit)
    assert patients(kit) == {name: before[name] for name in others}


def test_so_does_an_image_that_is_taken_back_or_made_anew(kit: StationKit) -> None:
    one_round(kit)
    removed, anew, *others = sorted(patients(kit))
    kit.intake.removed(number_of(removed))
    kit.intake.instances(number_of(anew), data=file_of(number_of(anew)) + b"\0\0")
    taken_up(kit)
    assert sorted(patients(kit)) == others


def test_one_that_cannot_be_removed_keeps_no_other(kit: StationKit, monkeypatch: pytest.MonkeyPatch) -> None:
    one_round(kit)
    before = patients(kit)
    stuck, gone, *others = sorted(before, key=lambda name: before[name])
    remove = PredictionFolder.remove

    def some(folder: PredictionFolder, name: str) -> None:
        if any(name.endswith(path.name) for path in before[stuck]):
            raise StorageError("predictions.folder: the folder cannot be written")
        remove(folder, name)

    monkeypatch.setattr(PredictionFolder, "remove", some)
    kit.intake.consent(**{f"p{number_of(name)}": "objection" for name in (stuck, gone)})
    looking = keeper(kit)
    kit.catalogue.sync()
    with pytest.raises(StorageError):
        looking.look()
    assert patients(kit) == {name: before[name] for name in (stuck, *others)}
    assert sum(row.removed for row in kit.book.by_run()) == len(before[gone])
    # The next look tries again.
    monkeypatch.undo()
    assert looking.look() == len(before[stuck])
    assert patients(kit) == {name: before[name] for name in others}


def asking(kit: StationKit, then: Callable[[], None]) -> list[str]:
    """A run whose train is being asked when something happens; returns the cases it was asked about."""
    entered, go_on = threading.Event(), threading.Event()

    def say(case: str) -> Answered:
        if len(train.asked) == 3:
            entered.set()
            session = kit.sandbox.started[-1]
            kit.until(lambda: go_on.is_set() or session.killed.is_set())
        return {}, {}, {"lungs": marks()}

    train = Marks(say)
    kit.sandbox.train = train
    envelope = kit.ready(rounds=1)
    for kind in (Kind.TRAIN, Kind.EVALUATE, Kind.FINISH):
        kit.message(envelope, kind)
    assert entered.wait(60)
    then()
    go_on.set()
    settled(kit)
    return train.asked


def test_a_withdrawal_while_it_is_asked_ends_the_container_and_keeps_nothing_of_that_patient(
    kit: StationKit,
) -> None:
    scope_names: dict[str, str] = {}

    def withdraw() -> None:
        # Of the first case that was answered, so that its objects are made already.
        (prepared,) = [each for _, each in kit.warm._held()]
        key = kit.preparation.cohort_key
        for number in range(40):
            for_train = key.case_id(prepared.admitted.definition.scope, f"2.25.{number + 2000}")
            scope_names[for_train] = patient(number)
        first = kit.sandbox.asked[-3].case
        assert first is not None
        scope_names["withdrawn"] = scope_names[first]
        kit.intake.consent(**{f"p{number_of(scope_names[first])}": "objection"})
        taken_up(kit)
        assert kit.sandbox.started[-1].killed.is_set()

    assert len(asking(kit, withdraw)) == 3
    found = patients(kit)
    assert scope_names["withdrawn"] not in found
    assert len(found) == 1


def test_a_policy_that_is_withdrawn_meanwhile_keeps_nothing(kit: StationKit) -> None:
    def revoke() -> None:
        from policies.refusals import Reason, RefusalCode

        kit.warm.revoke(lambda _: Reason(RefusalCode.POLICY_REVOKED))
        assert kit.sandbox.started[-1].killed.is_set()

    asking(kit, revoke)
    assert kept(kit) == []
    assert kit.events().count("predictions-kept") == 1
