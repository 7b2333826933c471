"""Every strategy against Flower's own on the whole model: weights over several rounds, and what is kept between them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp import strategy as flower
from safetensors.numpy import load_file
from strategy_kit import NAMES, Orchestrator, random_rounds

from orchestrator.federation import aggregation
from orchestrator.federation.strategies import StrategyStateError, TooFewUpdatesError, make_strategy
from policies.errors import UsageError
from policies.order import StrategyChoice
from tests.flower_strategies import flower_rounds, flower_strategy

SHAPES = {"conv.weight": (7, 3, 3), "bias": (5,), "scalar": (), "empty": (0, 4), "last": (41, 2)}
CASES: list[tuple[str, dict[str, float], int]] = [
    ("FedAvg", {}, 3),
    ("FedAdam", {}, 3),
    ("FedAdam", {"eta": 0.03, "beta_1": 0.5, "beta_2": 0.9, "tau": 1e-6}, 4),
    ("FedAdam", {"beta_1": 0.0, "beta_2": 0.0}, 3),
    ("FedYogi", {}, 3),
    ("FedYogi", {"eta": 0.2, "beta_2": 0.5}, 2),
    ("FedAdagrad", {}, 3),
    ("FedAdagrad", {"eta": 1.0, "tau": 0.5}, 5),
    ("FedAvgM", {}, 3),
    ("FedAvgM", {"server_momentum": 0.9}, 3),
    ("FedAvgM", {"server_learning_rate": 0.5}, 3),
    ("FedAvgM", {"server_learning_rate": 0.7, "server_momentum": 0.5}, 4),
    ("FedMedian", {}, 3),
    ("FedMedian", {}, 4),
    ("FedTrimmedAvg", {}, 5),
    ("FedTrimmedAvg", {"beta": 0.4}, 8),
    ("Krum", {"num_malicious_nodes": 1}, 5),
    ("Krum", {"num_malicious_nodes": 2, "num_nodes_to_select": 3}, 9),
]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    # So that a tensor of the test has several.
    monkeypatch.setattr(aggregation, "_MOST_ELEMENTS", 11)
    monkeypatch.setattr(aggregation, "_FEWEST_ELEMENTS", 11)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("name", "parameters", "stations"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)]
)
def test_four_rounds_are_those_of_the_whole_model(
    name: str, parameters: dict[str, float], stations: int, tmp_path: Path
) -> None:
    start, rounds = random_rounds(len(name) + stations, SHAPES, stations, 4)
    ours = Orchestrator(tmp_path, name, parameters).rounds(start, rounds)
    theirs = flower_rounds(flower_strategy(name, parameters), start, rounds)
    for mine, other in zip(ours, theirs, strict=True):
        assert {key: value.dtype for key, value in mine.items()} == dict.fromkeys(SHAPES, np.float32)
        for key in SHAPES:
            assert mine[key].shape == other[key].shape
            if name == "Krum":  # Flower adds up the kept ones from the nearest on.
                assert np.allclose(mine[key], other[key], rtol=1e-6, atol=1e-6)
            else:
                assert np.array_equal(mine[key], other[key])
    assert not np.array_equal(ours[0]["last"], ours[1]["last"])


MOMENTS: list[tuple[str, dict[str, float], dict[str, str]]] = [
    ("FedAdam", {}, {"m_t": "m_t", "v_t": "v_t"}),
    ("FedYogi", {}, {"m_t": "m_t", "v_t": "v_t"}),
    ("FedAdagrad", {}, {"m_t": "m_t", "v_t": "v_t"}),
    ("FedAvgM", {"server_momentum": 0.9}, {"momentum_vector": "momentum_vector"}),
]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(("name", "parameters", "moments"), MOMENTS, ids=[case[0] for case in MOMENTS])
def test_what_is_kept_is_what_flower_keeps(
    name: str, parameters: dict[str, float], moments: dict[str, str], tmp_path: Path
) -> None:
    start, rounds = random_rounds(5, SHAPES, 3, 3)
    orchestrator = Orchestrator(tmp_path, name, parameters)
    orchestrator.rounds(start, rounds)
    theirs: Any = flower_strategy(name, parameters)
    flower_rounds(theirs, start, rounds)
    assert orchestrator.last is not None
    state = orchestrator.last.state
    assert set(state) == set(moments)
    assert {path.name for path in (tmp_path / "strategy").iterdir()} == {
        blob.digest[7:] for blob in state.values()
    }
    for moment, attribute in moments.items():
        kept = getattr(theirs, attribute)
        whole = kept if isinstance(kept, dict) else dict(zip(start, kept, strict=True))
        found = {
            key.partition(".")[2]: value
            for key, value in load_file(orchestrator.files.path(state[moment])).items()
        }
        assert found.keys() == whole.keys()
        assert all(np.array_equal(found[key], whole[key]) for key in whole)


def test_fedprox_is_fedavg_at_the_orchestrator(tmp_path: Path) -> None:
    start, rounds = random_rounds(8, SHAPES, 3, 2)
    ours = Orchestrator(tmp_path, "FedProx").rounds(start, rounds)
    theirs = flower_rounds(flower.FedProx(fraction_train=0.3, proximal_mu=0.5), start, rounds)
    assert all(np.array_equal(ours[1][key], theirs[1][key]) for key in SHAPES)


def test_krum_says_whom_it_left_out(tmp_path: Path) -> None:
    start, (deltas,) = random_rounds(1, SHAPES, 5, 1)
    far = {key: np.asarray(value + np.float32(50)) for key, value in deltas["dommel"][1].items()}
    orchestrator = Orchestrator(tmp_path, "Krum", {"num_malicious_nodes": 1, "num_nodes_to_select": 2})
    orchestrator.round(1, start, {**deltas, "dommel": (10, far)})
    assert orchestrator.last is not None
    left_out = orchestrator.last.left_out
    assert "dommel" in left_out
    assert len(left_out) == 3
    assert list(left_out) == sorted(left_out)


@pytest.mark.parametrize("name", ["FedAdam", "FedYogi", "FedAdagrad", "FedAvgM"])
def test_a_buffer_gets_its_mean_and_no_step_of_an_optimiser(name: str, tmp_path: Path) -> None:
    # A step of Adam is about eta whatever the change: a variance of 0.05 would fall below zero.
    start = {"w": np.zeros(3, np.float32), "bn.running_var": np.full(3, 0.05, np.float32)}
    step = {"w": np.full(3, -0.01, np.float32), "bn.running_var": np.full(3, -0.02, np.float32)}
    deltas = dict.fromkeys(NAMES[:3], (10, step))
    parameters = {"server_learning_rate": 4.0} if name == "FedAvgM" else {"eta": 0.5}
    orchestrator = Orchestrator(tmp_path, name, parameters)
    found = orchestrator.round(1, start, deltas, frozenset({"bn.running_var"}))
    assert np.allclose(found["bn.running_var"], 0.03)
    assert not np.allclose(found["w"], -0.01)
    without = Orchestrator(tmp_path, name, parameters).round(1, start, deltas)
    assert (without["bn.running_var"] < 0).all()


def test_moments_that_are_gone_or_of_other_weights_are_no_new_start(tmp_path: Path) -> None:
    start, rounds = random_rounds(3, SHAPES, 3, 2)
    orchestrator = Orchestrator(tmp_path, "FedAdam")
    model = orchestrator.round(1, start, rounds[0])
    less = {key: value for key, value in model.items() if key != "bias"}
    cut = {
        name: (examples, {key: value for key, value in step.items() if key != "bias"})
        for name, (examples, step) in rounds[1].items()
    }
    with pytest.raises(StrategyStateError):
        orchestrator.round(2, less, cut)
    assert orchestrator.last is not None
    path = orchestrator.files.path(orchestrator.last.state["v_t"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(StrategyStateError):
        orchestrator.round(2, model, rounds[1])
    path.unlink()
    with pytest.raises(StrategyStateError):
        orchestrator.round(2, model, rounds[1])
    path.write_bytes(whole)
    orchestrator.round(2, model, rounds[1])


@pytest.mark.parametrize(
    ("name", "parameters", "stations"),
    [("FedMedian", {}, 2), ("FedTrimmedAvg", {}, 4), ("Krum", {"num_malicious_nodes": 1}, 4)],
)
def test_with_fewer_updates_than_it_takes_nothing_is_combined(
    name: str, parameters: dict[str, float], stations: int, tmp_path: Path
) -> None:
    start, (deltas,) = random_rounds(1, SHAPES, stations, 1)
    with pytest.raises(TooFewUpdatesError):
        Orchestrator(tmp_path, name, parameters).round(1, start, deltas)


@pytest.mark.parametrize(
    "choice",
    [
        {"name": "none"},
        {"name": "FedAvg", "parameters": {"eta": 0.1}},
        {"name": "FedTrimmedAvg", "parameters": {"beta": 0.5}},
        {"name": "Krum", "parameters": {"num_nodes_to_select": 0}},
    ],
)
def test_a_choice_that_makes_no_sense_is_no_strategy(choice: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make_strategy(StrategyChoice.model_validate(choice))
