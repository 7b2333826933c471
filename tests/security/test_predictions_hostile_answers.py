"""Attack: a train answers `predict` with what is no prediction of that image; nothing of it is kept, and nothing else changes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prediction_documents import LUNGS, SHARES
from prediction_kit import SHAPE, Marks, kept, marks, one_round, predicting_station
from safetensors.numpy import save
from station_kit import StationKit
from station_simulators import Answered

from policies.wire.instructions import Status
from station.predictions.judging import Judged, arrays_limit, judge
from station.sandbox.spec import TrainReply

DECLARED = (LUNGS, SHARES)
WHOLE = {"lungs": marks()}


def beyond() -> np.ndarray:
    found = marks()
    found[3, 4] = 3
    return found


ARRAYS: dict[str, Callable[[], dict[str, np.ndarray]]] = {
    "none": dict,
    "another name": lambda: {"heart": marks()},
    "a path for a name": lambda: {"..-..-etc-passwd": marks()},
    "one more": lambda: {**WHOLE, "heart": marks()},
    "another shape": lambda: {"lungs": marks().T},
    "a row less": lambda: {"lungs": marks()[:-1]},
    "a channel more": lambda: {"lungs": marks()[np.newaxis]},
    "a number that is no segment": lambda: {"lungs": beyond()},
    "255": lambda: {"lungs": np.full(SHAPE, 255, np.uint8)},
    "wide numbers": lambda: {"lungs": marks().astype(np.int64)},
    "floats": lambda: {"lungs": marks().astype(np.float32)},
    "booleans": lambda: {"lungs": marks().astype(bool)},
}


def answered(folder: Path, data: bytes | None, metrics: dict[str, Any] | None = None) -> Judged | str:
    path = None
    if data is not None:
        path = folder / "answer.safetensors"
        path.write_bytes(data)
    return judge(TrainReply(metrics or {}, {}, path, len(data or b""), 0.1), DECLARED, SHAPE)


@pytest.mark.parametrize("arrays", ARRAYS.values(), ids=ARRAYS.keys())
def test_label_maps_that_are_not_the_declared_ones(
    tmp_path: Path, arrays: Callable[[], dict[str, np.ndarray]]
) -> None:
    made = {name: np.ascontiguousarray(array) for name, array in arrays().items()}
    assert isinstance(answered(tmp_path, save(made) if made else None), str)


def test_an_honest_answer_is_taken_as_it_is(tmp_path: Path) -> None:
    found = answered(tmp_path, save(WHOLE), {"involved": 3, "volume": 0.5})
    assert isinstance(found, Judged)
    assert found.measured == {"involved": 3.0, "volume": 0.5}
    assert found.marked == {"lungs": (int((marks() == 1).sum()), int((marks() == 2).sum()))}


@pytest.mark.parametrize(
    "metrics",
    [
        {"involved": 100.1},
        {"involved": -0.1},
        {"involved": float("nan")},
        {"involved": float("inf")},
        {"involved": 10**400},
        {"involved": True},
        {"involved": "12"},
        {"involved": [12.0]},
        {"involved": None},
        {"age": 61},
        {"../involved": 1.0},
    ],
)
def test_numbers_that_are_not_declared_or_out_of_range(tmp_path: Path, metrics: dict[str, Any]) -> None:
    assert isinstance(answered(tmp_path, save(WHOLE), metrics), str)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no safetensors",
        save(WHOLE)[:-1],
        save(WHOLE) + b"\0",
        save(WHOLE, metadata={"patient": "Jansen"}),
        save({**WHOLE, "padding": np.zeros(100_000, np.uint8)}),
    ],
    ids=["empty", "garbage", "short", "long", "metadata", "too large"],
)
def test_files_that_are_none_or_hold_more(tmp_path: Path, data: bytes) -> None:
    assert isinstance(answered(tmp_path, data), str)


def test_as_many_bytes_are_read_as_the_image_has_and_no_more() -> None:
    assert arrays_limit((LUNGS,), (512, 512, 600)) == 512 * 512 * 600 + (64 << 10)
    assert arrays_limit((LUNGS, LUNGS), (10, 10)) == 200 + (64 << 10)
    assert arrays_limit((SHARES,), (512, 512, 600)) == 0


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StationKit]:
    made = predicting_station(tmp_path, monkeypatch)
    yield made
    made.close()


def test_one_that_lies_about_every_image_leaves_nothing_behind(kit: StationKit) -> None:
    lies = iter([*ARRAYS.values()] * 4)

    def say(case: str) -> Answered:
        arrays = {name: np.ascontiguousarray(array) for name, array in next(lies)().items()}
        return {}, {}, arrays or None

    train = Marks(say)
    kit.sandbox.train = train
    before = {path.name for path in kit.folder.iterdir()}
    _, replies = one_round(kit)
    assert [reply.status for reply in replies] == [Status.RELEASED, Status.RELEASED, Status.FINISHED]
    assert len(train.asked) > 2
    assert kept(kit) == []
    assert kit.book.by_run() == ()
    assert {path.name for path in kit.folder.iterdir()} == before
    (record,) = [
        item.record
        for item in kit.audit.events(limit=10_000)
        if item.record.event.value == "predictions-kept"
    ]
    assert record.numbers["left_out"] == len(train.asked)
    # Nothing that the train wrote is in any record.
    assert not [
        item for item in kit.audit.events(limit=10_000) if "heart" in repr(item) or "passwd" in repr(item)
    ]
