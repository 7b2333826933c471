"""Aggregation against plain arithmetic, and in bounded memory."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from orchestrator.federation.aggregation import (
    Inbound,
    NotFiniteError,
    Update,
    aggregate,
    make_strategy,
    weighted_means,
)
from orchestrator.federation.strategies import StateFiles
from policies.documents import digest_of_file
from policies.order import StrategyChoice
from policies.wire.arrays import TensorShape
from policies.wire.arrays_writing import ArraysWriter
from policies.wire.floats import bfloat16_from_float32
from policies.wire.instructions import Blob

FEDAVG = StrategyChoice(name="FedAvg")


def _averaged(folder: Path, updates: list[Update]) -> Blob:
    inbound, files = Inbound(folder / "inbound"), StateFiles(folder / "strategy")
    found = aggregate(make_strategy(FEDAVG), 1, inbound, updates, files)
    assert (found.left_out, found.state, files.folder.exists()) == ((), {}, False)
    return found.weights


def _aggregate(
    folder: Path, inbound: dict[str, np.ndarray], deltas: list[tuple[int, dict[str, np.ndarray]]]
) -> Path:
    save_file(inbound, folder / "inbound")
    updates = []
    for number, (examples, arrays) in enumerate(deltas):
        save_file(arrays, folder / f"delta{number}")
        updates.append(Update(f"station-{number}", folder / f"delta{number}", examples))
    blob = _averaged(folder, updates)
    path = folder / blob.digest.removeprefix("sha256:")
    assert digest_of_file(path) == blob.digest
    assert path.stat().st_size == blob.size
    return path


def test_floats_are_averaged_by_examples(tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    inbound = {
        "a.weight": generator.normal(size=(37, 11)).astype(np.float32),
        "b": generator.normal(size=5),
        "half": generator.normal(size=9).astype(np.float16),
        "scalar": np.array(0.5, dtype=np.float32),
        "empty": np.zeros((0, 3), dtype=np.float32),
    }
    deltas = [
        (10 * (number + 1), {k: generator.normal(size=v.shape).astype(v.dtype) for k, v in inbound.items()})
        for number in range(3)
    ]
    found = load_file(_aggregate(tmp_path, inbound, deltas))
    for name, value in inbound.items():
        expected = value + sum(delta[name].astype(np.float64) * examples for examples, delta in deltas) / 60
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert np.allclose(
            found[name],
            expected,
            rtol=2e-3 if name == "half" else 1e-5,
            atol=1e-3 if name == "half" else 1e-6,
        )


def test_integers_are_taken_from_the_heaviest_station_and_keep_their_type(tmp_path: Path) -> None:
    inbound = {
        "count": np.array([100, 2**53 + 1], dtype=np.int64),
        "flag": np.array([1, 0], dtype=np.bool_),
        "u": np.array([3], dtype=np.uint8),
    }
    steps = [
        (10, {"count": np.array([1, 1]), "flag": np.array([0, 1]), "u": np.array([250])}),
        (30, {"count": np.array([-7, 2]), "flag": np.array([-1, 0]), "u": np.array([-3])}),
        (30, {"count": np.array([9, 9]), "flag": np.array([0, 0]), "u": np.array([9])}),
    ]
    found = load_file(_aggregate(tmp_path, inbound, steps))
    assert found["count"].tolist() == [93, 2**53 + 3]
    assert found["flag"].tolist() == [False, False]
    assert found["u"].tolist() == [0]
    assert (found["count"].dtype, found["flag"].dtype, found["u"].dtype) == (np.int64, np.bool_, np.uint8)


def test_what_the_policy_withholds_stays_as_it_was(tmp_path: Path) -> None:
    inbound = {"w": np.ones(4, dtype=np.float32), "running_mean": np.full(4, 5, dtype=np.float32)}
    found = load_file(_aggregate(tmp_path, inbound, [(10, {"w": np.ones(4, dtype=np.float32)})]))
    assert found["w"].tolist() == [2, 2, 2, 2]
    assert found["running_mean"].tolist() == [5, 5, 5, 5]


def test_deltas_in_a_coarser_type_are_widened(tmp_path: Path) -> None:
    save_file({"w": np.zeros(3, dtype=np.float32)}, tmp_path / "inbound")
    with ArraysWriter(tmp_path / "delta", [TensorShape("w", "bfloat16", (3,))]) as writer:
        writer.write("w", bfloat16_from_float32(np.array([1.0, -2.5, 0.125], dtype=np.float32)))
        writer.close()
    blob = _averaged(tmp_path, [Update("a", tmp_path / "delta", 10)])
    assert load_file(tmp_path / blob.digest[7:])["w"].tolist() == [1.0, -2.5, 0.125]


def test_an_average_that_overflows_is_no_model(tmp_path: Path) -> None:
    inbound = {"w": np.full(2, 3e38, dtype=np.float32)}
    with pytest.raises(NotFiniteError):
        _aggregate(tmp_path, inbound, [(10, {"w": np.full(2, 3e38, dtype=np.float32)})])
    assert not list(tmp_path.glob(".*"))


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    elements = 12 * (1 << 20)  # 48 MiB
    inbound = {"w": np.ones(elements, dtype=np.float32)}
    save_file(inbound, tmp_path / "inbound")
    save_file(inbound, tmp_path / "delta")
    updates = [Update(name, tmp_path / "delta", 10) for name in "ab"]
    del inbound
    tracemalloc.start()
    blob = _averaged(tmp_path, updates)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < elements * 4 / 2
    assert float(load_file(tmp_path / blob.digest[7:])["w"][-1]) == 2.0


def test_a_metric_counts_where_it_was_released() -> None:
    metrics = {"a": {"auc": 0.9, "loss": 1.0}, "b": {"loss": 3.0}, "c": {}}
    assert weighted_means(metrics, {"a": 30, "b": 10, "c": 100}) == {"auc": 0.9, "loss": 1.5}
    assert weighted_means({}, {}) == {}
