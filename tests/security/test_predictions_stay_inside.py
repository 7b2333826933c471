"""Attack: carry something out by what is predicted, by how long it takes, or by whether a place is free afterwards."""

from pathlib import Path
from typing import Any

import pytest
from moments_kit import SkippingClock
from prediction_kit import Marks, kept, marks, one_round, predicting_station
from sqlalchemy import text
from station_kit import order_digest
from station_simulators import Answered, TrainEndsError

from policies.wire.instructions import Kind
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
        held.append((round((clock() - since) / 60), kit.events()[events:]))
    (minutes, records), (others, more) = held
    # The hospital's window is half an hour; both runs had all of it, and no more.
    assert minutes == others == 30
    assert records == more
    assert records[-4:] == ["data-used", "predictions-kept", "container-ended", "cohort-wiped"]
    kit.close()
