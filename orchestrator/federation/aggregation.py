"""Turns the stations' deltas into the next weights, with a Flower strategy, a piece of a tensor at a time.

A release holds deltas from the inbound weights. For each piece of each float tensor the weights of every station
(inbound + delta) go to the strategy's own `aggregate_train` as `ArrayRecord`s, and the result to the new file. What
is resident is a few pieces per station, whatever the size of the model. This holds for strategies that treat every
number alike (`FedAvg`); one that keeps state or looks across tensors needs its own way here and is refused.

Integer and boolean tensors (a BatchNorm's `num_batches_tracked`) have no meaningful mean, and Flower would turn them
into float64: they are taken from the station with the most examples, the first by name among equals.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from orchestrator.federation.orders import sync_folder
from orchestrator.federation.tensors import Numbers, Tensor, TensorFile, to_bytes, write_header
from policies.documents import digest_of_file
from policies.errors import DataError, StorageError, UsageError
from policies.order import StrategyChoice
from policies.wire.instructions import Blob

_EXAMPLES = "num-examples"


class NotFiniteError(DataError):
    """Finite updates whose average overflows: one of them is not a training step."""


@dataclass(frozen=True, slots=True)
class Update:
    """One station's validated release.

    Attributes:
        station: its name.
        delta: the safetensors file of deltas, checked by `replies.check_release`.
        num_examples: the station's own rounded count, above 0.
    """

    station: str
    delta: Path
    num_examples: int


def make_strategy(choice: StrategyChoice) -> FedAvg:
    """The Flower strategy that an order names.

    Raises:
        UsageError: it names another one, or parameters it does not have.
    """
    if choice.name != "FedAvg" or choice.parameters:
        raise UsageError("this orchestrator aggregates with FedAvg, without parameters")
    # Flower tells each call of ours; a round has one per piece.
    logging.getLogger("flwr").setLevel(logging.WARNING)
    return FedAvg(weighted_by_key=_EXAMPLES)


def aggregate(strategy: FedAvg, round_: int, inbound: Path, updates: Sequence[Update], folder: Path) -> Blob:
    """Write the next weights.

    Args:
        strategy: from `make_strategy`.
        round_: Flower's server round.
        inbound: the weights that the stations started from.
        updates: at least one; all with the same tensors, each one of the inbound weights'.
        folder: where the new file goes, named by its digest.

    Returns:
        The new weights; the file is ``folder/<hex>``, synced.

    Raises:
        NotFiniteError: the deltas are finite, their average is not.
        StorageError: the disk.
    """
    ordered = sorted(updates, key=lambda update: update.station)
    weights = TensorFile(inbound)
    deltas = [TensorFile(update.delta) for update in ordered]
    heaviest = deltas[int(np.argmax([update.num_examples for update in ordered]))]
    examples = [update.num_examples for update in ordered]
    temporary = folder / f".round-{round_}.{os.getpid()}.new"
    try:
        with temporary.open("wb") as file:
            write_header(file, _in_order(weights.tensors))
            for name, tensor in _in_order(weights.tensors).items():
                for first, last in weights.pieces(name):
                    base = weights.read(name, first, last)
                    if name not in heaviest.tensors:
                        # A manifest may list a part of the model: the rest stays as it is.
                        values = base
                    elif tensor.is_float:
                        pieces = [_moved(base, delta.read(name, first, last)) for delta in deltas]
                        values = _averaged(strategy, round_, pieces, examples)
                        if not np.isfinite(values).all():
                            raise NotFiniteError("the average of the weights is not finite")
                    else:
                        values = _moved_whole(base, heaviest.read(name, first, last), tensor.dtype)
                    file.write(to_bytes(values, tensor.dtype))
            file.flush()
            os.fsync(file.fileno())
        blob = Blob(digest=digest_of_file(temporary), size=temporary.stat().st_size)
        temporary.replace(folder / blob.digest.removeprefix("sha256:"))
        sync_folder(folder)
    except OSError as error:
        raise StorageError(f"cannot write the new weights ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)
    return blob


def weighted_means(
    metrics: Mapping[str, Mapping[str, float]], num_examples: Mapping[str, int]
) -> dict[str, float]:
    """Mean of each metric over the stations that released it, weighted by their examples.

    Flower's own aggregation drops a whole round for one reply that lacks a metric; a station's guard may suppress one.
    """
    keys = sorted({key for values in metrics.values() for key in values})
    means: dict[str, float] = {}
    for key in keys:
        weights = {name: num_examples[name] for name, values in metrics.items() if key in values}
        total = sum(weights.values())
        if total > 0:
            means[key] = sum(metrics[name][key] * weight for name, weight in weights.items()) / total
    return means


def _in_order(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # By size of type, then name: every tensor starts aligned for its type, as safetensors itself lays them out.
    return dict(sorted(tensors.items(), key=lambda item: (-_width(item[1]), item[0])))


def _width(tensor: Tensor) -> int:
    return tensor.size // tensor.elements if tensor.elements else 1


def _moved(base: Numbers, delta: Numbers) -> Numbers:
    return base + delta


def _moved_whole(base: Numbers, delta: Numbers, dtype: str) -> Numbers:
    if dtype == "BOOL":
        return base ^ delta
    with np.errstate(over="ignore"):
        return base + delta


def _averaged(strategy: FedAvg, round_: int, pieces: Sequence[Numbers], examples: Sequence[int]) -> Numbers:
    messages = [
        Message(
            RecordDict(
                {
                    "arrays": ArrayRecord({"piece": Array(piece)}),
                    "metrics": MetricRecord({_EXAMPLES: count}),
                }
            ),
            dst_node_id=1,
            message_type="train",
        )
        for piece, count in zip(pieces, examples, strict=True)
    ]
    arrays, _ = strategy.aggregate_train(round_, messages)
    if arrays is None:
        raise UsageError("the strategy returned no arrays")
    return np.asarray(arrays["piece"].numpy())
