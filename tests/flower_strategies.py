"""Flower's own strategies on whole models: the peer that aggregation is held to, byte for byte."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.supercore.task_identity import TaskIdentity

Model = dict[str, np.ndarray[Any, Any]]
Deltas = Mapping[str, tuple[int, Model]]
"""Of each station by name: its examples, and what it would change."""
STATIONS = 9
"""How many nodes Flower is told of; it only asks that there are enough."""


def in_a_run() -> None:
    """Make this process one in which Flower makes messages: it knows a run, a node and a task."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


class _Grid:
    """Who is there, which `configure_train` asks and these tests do not mind."""

    def get_node_ids(self) -> Iterable[int]:
        return range(STATIONS)


def flower_strategy(name: str, parameters: Mapping[str, float]) -> flower.FedAvg:
    """Flower's own, as its user would make it."""
    kind = flower.MultiKrum if name == "Krum" else getattr(flower, name)
    made: flower.FedAvg = kind(fraction_train=0.3, **parameters)
    return made


def flower_rounds(strategy: flower.FedAvg, start: Model, rounds: Sequence[Deltas]) -> list[Model]:
    """The whole model of each round; stations compute in the model's own types, as they do."""
    in_a_run()
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
