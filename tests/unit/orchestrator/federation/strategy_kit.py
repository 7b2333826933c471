"""Our strategies on files, over rounds that Flower's own take on whole models (`tests/flower_strategies.py`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from orchestrator.federation.aggregation import Aggregated, Inbound, Update, aggregate, make_strategy
from orchestrator.federation.strategies import StateFiles
from policies.order import StrategyChoice
from policies.strategies import parameters_of
from tests.flower_strategies import Deltas, Model

NAMES = ("amstel", "berkel", "dommel", "eem", "geul", "ijssel", "linge", "maas", "rijn")


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
