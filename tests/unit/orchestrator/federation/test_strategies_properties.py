"""What holds of every strategy, whatever the model and whoever takes part; and what the robust ones promise."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from strategy_kit import NAMES, Deltas, Model, Orchestrator, random_rounds

from orchestrator.federation.aggregation import Inbound, NotFiniteError, Update, aggregate
from orchestrator.federation.strategies import StateFiles
from orchestrator.federation.strategies.selection import squared_distances
from policies.outputs import DType
from policies.strategies import STRATEGIES, StrategyName, fewest_updates
from policies.wire.arrays import TensorShape, open_tensor, raw_dtype, read_layout
from policies.wire.arrays_writing import ArraysWriter
from policies.wire.floats import as_float, from_float

COMBINING: list[StrategyName] = [name for name in STRATEGIES if name != "none"]
PARAMETERS: dict[str, dict[str, float]] = {
    "FedAvgM": {"server_momentum": 0.9},
    "FedTrimmedAvg": {"beta": 0.3},
    "Krum": {"num_nodes_to_select": 2},
}
DTYPES: tuple[DType, ...] = ("float32", "float64", "float16", "bfloat16", "int64", "uint8")
FLOATS = ("float32", "float64", "float16", "bfloat16")
STEPS = {"float32": "float32", "float64": "float32", "float16": "float16", "bfloat16": "bfloat16"}


Tensors = dict[str, tuple[DType, np.ndarray[Any, Any]]]


def write(path: Path, tensors: Tensors) -> Path:
    """A file of raw items."""
    shapes = [TensorShape(name, dtype, items.shape) for name, (dtype, items) in tensors.items()]
    with ArraysWriter(path, shapes) as writer:
        for entry in writer.layout.entries:
            writer.write(entry.name, tensors[entry.name][1])
        writer.close()
    return path


def raw(values: np.ndarray[Any, Any], dtype: DType) -> np.ndarray[Any, Any]:
    return (
        from_float(values.astype(np.float64), dtype) if dtype in FLOATS else values.astype(raw_dtype(dtype))
    )


def read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {
        entry.name: np.asarray(
            as_float(open_tensor(path, entry), entry.tensor.dtype) if entry.tensor.dtype in FLOATS else open_tensor(path, entry)
        )
        for entry in read_layout(path).entries
    }  # fmt: skip


@st.composite
def rounds(draw: st.DrawFn) -> tuple[StrategyName, Tensors, list[tuple[int, Tensors]], list[int]]:
    """A strategy, weights, the stations' examples and steps, and another order of the stations."""
    name = draw(st.sampled_from(COMBINING))
    least = fewest_updates(name, PARAMETERS.get(name, {}))
    count = draw(st.integers(least, max(least, 9)))
    shapes = draw(
        st.dictionaries(
            st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,2})?", fullmatch=True),
            st.tuples(st.sampled_from(DTYPES), arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
            min_size=1,
            max_size=5,
        )
    )  # fmt: skip
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    weights: Tensors = {
        key: (dtype, raw(np.asarray(random.integers(50, 100, shape) * 0.25), dtype))
        for key, (dtype, shape) in shapes.items()
    }
    steps: list[tuple[int, Tensors]] = []
    for _ in range(count):
        step: Tensors = {}
        for key, (dtype, shape) in shapes.items():
            told: DType = STEPS.get(dtype, "int64")  # type: ignore[assignment]
            values = (
                np.asarray(random.normal(size=shape))
                if dtype in FLOATS
                else np.asarray(random.integers(-3, 4, shape))
            )
            step[key] = (told, raw(values, told))
        steps.append((draw(st.integers(1, 60)) * 10, step))
    return name, weights, steps, draw(st.permutations(range(count)))


@settings(max_examples=60, deadline=None)
@given(rounds())
def test_any_model_of_any_stations_in_any_order(
    drawn: tuple[StrategyName, Tensors, list[tuple[int, Tensors]], list[int]],
) -> None:
    name, weights, steps, permuted = drawn
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        inbound = write(folder / "inbound", weights)
        updates = [
            Update(f"s{number:02d}", write(folder / f"delta{number}", step), examples)
            for number, (examples, step) in enumerate(steps)
        ]
        strategy = Orchestrator(folder, name, PARAMETERS.get(name, {})).strategy
        files = StateFiles(folder / "strategy")
        found = aggregate(strategy, 1, Inbound(inbound), updates, files)
        again = aggregate(strategy, 1, Inbound(inbound), [updates[i] for i in permuted], files)
        assert again == found
        result = read(folder / found.weights.digest[7:])
        before, deltas = read(inbound), [read(update.delta) for update in updates]
        assert [entry.tensor for entry in read_layout(folder / found.weights.digest[7:]).entries] == [
            entry.tensor for entry in read_layout(inbound).entries
        ]
        kept = [number for number, update in enumerate(updates) if update.station not in found.left_out]
        assert len(kept) == (2 if name == "Krum" else len(updates))
        for key, (dtype, _) in weights.items():
            moves = np.stack(
                [before[key] + np.asarray(deltas[number][key], before[key].dtype) for number in kept]
            )
            if dtype not in FLOATS:
                # Somebody's, never a mixture.
                assert all((result[key] == moves).any(axis=0).reshape(-1))
                continue
            low, high = moves.min(axis=0), moves.max(axis=0)
            slack = {"float16": 0.02, "bfloat16": 0.2}.get(dtype, 1e-4)
            if name in {"FedAvg", "FedProx", "FedAvgM", "FedMedian", "FedTrimmedAvg", "Krum"}:
                assert ((result[key] >= low - slack) & (result[key] <= high + slack)).all()
            if name in {"FedAvg", "FedProx"}:
                examples = [steps[number][0] for number in kept]
                assert np.allclose(result[key], np.average(moves, axis=0, weights=examples), atol=slack)
        # A second round starts from the moments of the first, and is another than a first one from there.
        last = Inbound(folder / found.weights.digest[7:], state=found.state)
        second = aggregate(strategy, 2, last, updates, files)
        assert set(second.state) == set(found.state)


@pytest.mark.parametrize("name", COMBINING)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_an_update_that_is_not_finite_is_none(name: StrategyName, bad: float, tmp_path: Path) -> None:
    start, (deltas,) = random_rounds(2, {"w": (3, 2), "b": (4,)}, 9, 1)
    deltas["geul"][1]["w"][1, 1] = bad
    with pytest.raises(NotFiniteError):
        Orchestrator(tmp_path, name, PARAMETERS.get(name, {})).round(1, start, deltas)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def _attacked(hostile: int, stations: int) -> tuple[Model, Deltas, Model, Model]:
    """Honest stations that agree roughly, and hostile ones that send the largest delta that a policy permits by default."""
    start, (honest,) = random_rounds(stations, {"w": (6, 5), "b": (7,), "s": ()}, stations, 1)
    start["n"] = np.array([100], np.int64)
    deltas = {
        name: (examples, dict(step) | {"n": np.array([3])}) for name, (examples, step) in honest.items()
    }
    attackers = NAMES[:hostile]
    moved = [
        {key: start[key] + step[key] for key in start}
        for name, (_, step) in deltas.items()
        if name not in attackers
    ]
    for name in attackers:
        # All the same: nearer to each other than the honest ones are.
        worst = {key: np.full_like(value, 1e6) for key, value in deltas[name][1].items()}
        # It claims more patients than all others together as well.
        deltas[name] = (100_000, worst)
    low = {key: np.min([each[key] for each in moved], axis=0) for key in start}
    high = {key: np.max([each[key] for each in moved], axis=0) for key in start}
    return start, deltas, low, high


@pytest.mark.parametrize(
    ("name", "parameters", "hostile", "stations"),
    [
        ("FedMedian", {}, 1, 3),
        ("FedMedian", {}, 3, 7),
        ("FedMedian", {}, 4, 9),
        ("FedTrimmedAvg", {"beta": 0.2}, 1, 5),
        ("FedTrimmedAvg", {"beta": 0.45}, 3, 7),
        ("Krum", {"num_malicious_nodes": 1}, 1, 5),
        ("Krum", {"num_malicious_nodes": 3}, 3, 9),
        ("Krum", {"num_malicious_nodes": 2, "num_nodes_to_select": 5}, 2, 9),
    ],
)
def test_hostile_stations_do_not_move_a_robust_mean_out_of_the_honest_range(
    name: str, parameters: dict[str, float], hostile: int, stations: int, tmp_path: Path
) -> None:
    start, deltas, low, high = _attacked(hostile, stations)
    found = Orchestrator(tmp_path, name, parameters).round(1, start, deltas)
    for key in start:
        assert (found[key] >= low[key] - 1e-5).all()
        assert (found[key] <= high[key] + 1e-5).all()
    plain = Orchestrator(tmp_path, "FedAvg").round(1, start, deltas)
    assert all((np.abs(plain[key] - start[key]) > 1000).all() for key in start)


@pytest.mark.parametrize(
    ("name", "parameters", "hostile"), [("FedMedian", {}, 4), ("FedTrimmedAvg", {"beta": 0.2}, 2)]
)
def test_beyond_what_they_promise_they_promise_nothing(
    name: str, parameters: dict[str, float], hostile: int, tmp_path: Path
) -> None:
    # The counterpart: the test above could not pass by the numbers being small.
    start, deltas, _, high = _attacked(hostile, 5 if name != "FedMedian" else 7)
    for attacker in NAMES[:hostile]:
        deltas[attacker][1]["w"][...] = 1e6
    found = Orchestrator(tmp_path, name, parameters).round(1, start, deltas)
    assert (found["w"] > high["w"] + 1000).all()


def test_equal_updates_are_at_distance_zero_and_far_ones_at_theirs(tmp_path: Path) -> None:
    start, (deltas,) = random_rounds(4, {"a": (300, 301), "b": (3,)}, 3, 1)
    del start
    steps = [deltas[name][1] for name in NAMES[:3]]
    steps[1] = {key: value.copy() for key, value in steps[0].items()}
    steps[2]["b"] = steps[2]["b"] + np.float32(1e6)
    updates = [
        Update(name, write(tmp_path / name, {key: ("float32", value) for key, value in step.items()}), 10)
        for name, step in zip(NAMES, steps, strict=False)
    ]
    found = squared_distances(updates)
    assert found[0, 1] == found[1, 0] == 0.0
    flat = [np.concatenate([each[key].reshape(-1).astype(np.float64) for key in "ab"]) for each in steps]
    assert found[0, 2] == pytest.approx(np.sum((flat[0] - flat[2]) ** 2), rel=1e-12)
