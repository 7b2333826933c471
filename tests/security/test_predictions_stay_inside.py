"""Attack: carry something out by what is predicted, by how long it takes, or by whether a place is free afterwards."""

from pathlib import Path
from typing import Any

import pytest
from ct_files import ct_case
from moments_kit import SkippingClock
from prediction_kit import Marks, kept, marks, one_round, predicting_station, settled
from sqlalchemy import text
from station_kit import order_digest
from station_simulators import Answered, TrainEndsError

from policies.wire.instructions import Kind
from station.cohorts.unusable import UnusableImage
from station.predictions.folder import PredictionFolder
from station.predictions.maker import ObjectMaker, images_of
from station.runs.moments import Moments
from station.sandbox.spec import ExitClass, TrainFailure

QUANTUM_S = 600.0


def test_what_leaves_is_the_same_with_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for name, keep in (("with", True), ("without", False)):
        (tmp_path / name).mkdir()
        with monkeypatch.context() as patch:
            kit = predicting_station(tmp_path / name, patch, keep=keep)
            _, replies = one_round(kit)
            assert bool(kept(kit)) is keep
            released = [path.read_bytes() for path in sorted(kit.paths.releases.rglob("*.safetensors"))]
            with kit.database.read() as session:
                entries = session.execute(text("SELECT count(*) FROM egress_ledger")).scalar_one()
            seen.append((replies, released, entries))
            kit.close()
    (one, arrays, entries), (other, others, more) = seen
    assert arrays == others != []
    assert entries == more
    for first, second in zip(one, other, strict=True):
        assert (first.status, first.metrics, first.release, first.num_examples) == (
            second.status,
            second.metrics,
            second.release,
            second.num_examples,
        )


def _says(found: bool) -> Any:
    """A train that answers at once where it found something, and else dies, fails, or takes its time."""

    def say(case: str) -> Answered:
        if found:
            return {}, {}, {"lungs": marks()}
        raise TrainEndsError(TrainFailure(ExitClass.CRASH))

    return say


def test_under_a_quantum_the_place_is_held_for_the_same_time_whatever_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = predicting_station(
        tmp_path, monkeypatch, {"release.timing_quantum_s": QUANTUM_S, "resources.run_hours": 100.0}
    )
    clock = SkippingClock()

    held: list[tuple[float, list[str]]] = []
    for found in (True, False):
        kit.moments = Moments(clock, clock.wait)
        kit.database.close()
        kit.open()
        kit.sandbox.train = Marks(_says(found))
        events = len(kit.events())
        envelope = kit.ready(rounds=1)
        for kind in (Kind.TRAIN, Kind.EVALUATE):
            kit.message(envelope, kind)
        since = clock()
        kit.message(envelope, Kind.FINISH)
        assert kit.warm.orders() == {order_digest(envelope)}
        kit.until(lambda: not kit.warm.orders())
        freed = clock()
        settled(kit)
        held.append((round((freed - since) / 60), kit.events()[events:]))
    (minutes, records), (others, more) = held
    # The hospital's window is half an hour; both runs had all of it, and no more.
    assert minutes == others == 30
    assert records == more
    assert records[-4:] == ["data-used", "container-ended", "cohort-wiped", "predictions-kept"]
    kit.close()


def test_the_place_is_free_before_anything_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many objects are put in their places, each of which takes the disk a moment, is the train's to choose."""
    kit = predicting_station(tmp_path, monkeypatch)
    orders: list[frozenset[str]] = []
    keep = PredictionFolder.keep

    def slow(folder: PredictionFolder, name: str) -> bool:
        orders.append(kit.warm.orders())
        return keep(folder, name)

    monkeypatch.setattr(PredictionFolder, "keep", slow)
    one_round(kit)
    assert len(orders) == len(kept(kit)) > 0
    assert set(orders) == {frozenset()}
    kit.close()


def test_making_what_was_answered_ends_within_the_window(tmp_path: Path) -> None:
    """A large answer is as slow to make as the train wants it to be: what is under way when no time is left ends."""
    left_s = [1e6]
    maker = ObjectMaker(lambda: left_s[0])
    images_of(maker, ct_case(tmp_path, 0))
    left_s[0] = 0.0
    with pytest.raises(UnusableImage):
        images_of(maker, ct_case(tmp_path, 1))
    maker.close()


def test_an_answer_that_provokes_a_bug_is_on_record_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = predicting_station(tmp_path, monkeypatch)

    def broken(*_: object) -> str:
        raise OverflowError("a bug of ours")

    monkeypatch.setattr("station.runs.asking_predictions.judge", broken)
    one_round(kit)
    assert kept(kit) == []
    assert kit.events().count("predictions-kept") == 1
    kit.close()
