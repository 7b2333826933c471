"""Flower's own strategies on whole models, and ours on files, over the same rounds."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from safetensors.numpy import load_file, save_file

from orchestrator.federation.aggregation import Aggregated, Inbound, Update, aggregate, make_strategy
from orchestrator.federation.strategies import StateFiles
from policies.order import StrategyChoice
from policies.strategies import parameters_of

Model = dict[str, np.ndarray[Any, Any]]
Deltas = Mapping[str, tuple[int, Model]]
"""Of each station by name: its examples, and what it would change."""

NAMES = ("amstel", "berkel", "dommel", "eem", "geul", "ijssel", "linge", "maas", "rijn")


class _Grid:
    """Who is there, which `configure_train` asks and these tests do not mind."""

    def get_node_ids(self) -> Iterable[int]:
        return range(len(NAMES))


def flower_strategy(name: str, parameters: Mapping[str, float]) -> flower.FedAvg:
    """Flower's own, as its user would make it."""
    kind = flower.MultiKrum if name == "Krum" else getattr(flower, name)
    made: flower.FedAvg = kind(fraction_train=0.3, **parameters)
    return made


def flower_rounds(strategy: flower.FedAvg, start: Model, rounds: Sequence[Deltas]) -> list[Model]:
    """The whole model of each round; stations compute in the model's own types, as they do."""
    model, found = start, []
    for number, deltas in enumerate(rounds, 1):
        record = ArrayRecord({key: Array(np.asarray(value)) for key, value in model.items()})
        list(strategy.configure_train(number, record, ConfigRecord(), _Grid()))  # type: ignore[arg-type]
        replies = [
            Message(
                RecordDict(
                    {
                        "arrays": ArrayRecord(
                            {key: Array(np.asarray(model[key] + step[key])) for key in model}
                        ),
                        "metrics": MetricRecord({"num-examples": examples}),
                    }
                ),
                dst_node_id=1,
                message_type="train",
            )
            for _, (examples, step) in sorted(deltas.items())
        ]
        arrays, _ = strategy.aggregate_train(number, replies)
        assert arrays is not None
        model = {key: arrays[key].numpy().astype(value.dtype) for key, value in start.items()}
        found.append(model)
    return found


class Orchestrator:
    """Our side: files in a folder, the moments of the round before carried on."""

    def __init__(self, folder: Path, name: str, parameters: Mapping[str, float] | None = None) -> None:
        self.folder = folder
        self.files = StateFiles(folder / "strategy")
        # Whole numbers come as such from an order.
        whole = {
            key: int(value) if key.startswith("num_") else value for key, value in (parameters or {}).items()
        }
        self.strategy = make_strategy(
            StrategyChoice.model_validate({"name": name, "parameters": parameters_of(name, whole)})  # type: ignore[arg-type]
        )
        self.last: Aggregated | None = None

    def round(
        self, number: int, model: Model, deltas: Deltas, buffers: frozenset[str] = frozenset()
    ) -> Model:
        """One round; the weights that it comes to."""
        save_file(model, self.folder / "inbound")
        updates = []
        for name, (examples, step) in deltas.items():
            save_file(step, self.folder / f"delta-{name}")
            updates.append(Update(name, self.folder / f"delta-{name}", examples))
        state = self.last.state if self.last else {}
        inbound = Inbound(self.folder / "inbound", buffers, state)
        self.last = aggregate(self.strategy, number, inbound, updates, self.files)
        self.files.keep_only(self.last.state)
        return load_file(self.folder / self.last.weights.digest[7:])

    def rounds(self, start: Model, rounds: Sequence[Deltas]) -> list[Model]:
        """The model of each round."""
        model, found = start, []
        for number, deltas in enumerate(rounds, 1):
            model = self.round(number, model, deltas)
            found.append(model)
        return found


def random_rounds(
    seed: int, shapes: Mapping[str, tuple[int, ...]], stations: int, rounds: int
) -> tuple[Model, list[Deltas]]:
    """A model in float32, and steps of training that differ from station to station."""
    random = np.random.default_rng(seed)
    start = {key: np.asarray(random.normal(size=shape), np.float32) for key, shape in shapes.items()}
    found: list[Deltas] = []
    for _ in range(rounds):
        common = {key: random.normal(size=shape) for key, shape in shapes.items()}
        found.append(
            {
                name: (
                    int(random.integers(1, 9)) * 10,
                    {
                        key: np.asarray(0.1 * common[key] + 0.05 * random.normal(size=shape), np.float32)
                        for key, shape in shapes.items()
                    },
                )
                for name in NAMES[:stations]
            }
        )
    return start, found
