"""Turns the stations' deltas into the next weights, with a Flower strategy, a piece of a tensor at a time.

A release holds deltas from the inbound weights, in the policy's precision. For each piece of each float tensor the
weights of every station (inbound + delta, in float32 or wider) go to the strategy's own `aggregate_train` as
`ArrayRecord`s, and the result to the new file. What is resident is a few pieces per station, whatever the size of the
model. This holds for strategies that treat every number alike (`FedAvg`); one that keeps state or looks across tensors
needs its own way here and is refused.

Integer and boolean tensors (a BatchNorm's `num_batches_tracked`) have no meaningful mean, and Flower would turn them
into float64: they are taken from the station with the most examples, the first by name among equals. What the policy
withholds stays as it was.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from policies.errors import DataError, StorageError, UsageError
from policies.files import sync_folder
from policies.order import StrategyChoice
from policies.wire.arrays import (
    FLOAT_DTYPES,
    Array,
    TensorEntry,
    chunks_of,
    open_tensor,
    raw_dtype,
    read_layout,
)
from policies.wire.arrays_writing import ArraysWriter
from policies.wire.floats import as_float, from_float
from policies.wire.instructions import Blob

PIECE_ELEMENTS = 1 << 18
"""Elements that are worked on at once: 1 MiB of float32, of which Flower's records take some ten copies per station."""

_EXAMPLES = "num-examples"

Floats = NDArray[np.float32] | NDArray[np.float64]


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
    weights = read_layout(inbound).by_name()
    deltas = [(update, read_layout(update.delta).by_name()) for update in ordered]
    examples = [update.num_examples for update in ordered]
    heaviest = deltas[int(np.argmax(examples))]
    temporary = folder / f".round-{round_}.new"
    with (
        np.errstate(over="ignore", invalid="ignore"),
        ArraysWriter(temporary, [entry.tensor for entry in weights.values()]) as writer,
    ):
        for entry in writer.layout.entries:
            name, inbound_tensor = entry.name, (inbound, weights[entry.name])
            if name not in heaviest[1]:
                pieces: Iterator[Array] = chunks_of(open_tensor(*inbound_tensor), PIECE_ELEMENTS)
            elif entry.tensor.dtype in FLOAT_DTYPES:
                found = [(update.delta, tensors[name]) for update, tensors in deltas]
                pieces = _averaged_pieces(strategy, round_, inbound_tensor, found, examples)
            else:
                pieces = _moved_integers(inbound_tensor, (heaviest[0].delta, heaviest[1][name]))
            for piece in pieces:
                writer.write(name, piece)
        written = writer.close()
    blob = Blob(digest=written.digest, size=written.size)
    try:
        # The front, possibly another user of the same group, serves it.
        temporary.chmod(0o640)
        temporary.replace(folder / blob.digest.removeprefix("sha256:"))
        sync_folder(folder)
    except OSError as error:
        raise StorageError(f"cannot write the new weights ({error.strerror})") from error
    return blob


def weighted_means(metrics: dict[str, dict[str, float]], num_examples: dict[str, int]) -> dict[str, float]:
    """Mean of each metric over the stations that released it, weighted by their examples.

    Flower's own aggregation drops a whole round for one reply that lacks a metric; a station's guard may suppress one.

    >>> weighted_means({"a": {"auc": 1.0}, "b": {"auc": 0.0, "loss": 2.0}}, {"a": 30, "b": 10})
    {'auc': 0.75, 'loss': 2.0}
    """
    means: dict[str, float] = {}
    for key in sorted({key for values in metrics.values() for key in values}):
        weights = {name: num_examples[name] for name, values in metrics.items() if key in values}
        if (total := sum(weights.values())) > 0:
            means[key] = sum(metrics[name][key] * weight for name, weight in weights.items()) / total
    return means


_Place = tuple[Path, TensorEntry]


def _averaged_pieces(
    strategy: FedAvg, round_: int, inbound: _Place, deltas: Sequence[_Place], examples: Sequence[int]
) -> Iterator[Array]:
    dtype = inbound[1].tensor.dtype
    files = [chunks_of(open_tensor(*place), PIECE_ELEMENTS) for place in deltas]
    for base in chunks_of(open_tensor(*inbound), PIECE_ELEMENTS):
        start = as_float(base, dtype)
        moved = [
            start + as_float(next(file), place[1].tensor.dtype)
            for file, place in zip(files, deltas, strict=True)
        ]
        result = from_float(_averaged(strategy, round_, moved, examples), dtype)
        if not np.isfinite(as_float(result, dtype)).all():
            raise NotFiniteError("the average of the weights is not finite")
        yield result


def _moved_integers(inbound: _Place, delta: _Place) -> Iterator[Array]:
    raw = raw_dtype(inbound[1].tensor.dtype)
    steps = chunks_of(open_tensor(*delta), PIECE_ELEMENTS)
    for base, step in zip(chunks_of(open_tensor(*inbound), PIECE_ELEMENTS), steps, strict=True):
        yield (base.astype(np.int64) + step.astype(np.int64)).astype(raw)


def _averaged(strategy: FedAvg, round_: int, pieces: Sequence[Floats], examples: Sequence[int]) -> Floats:
    messages = [
        Message(
            RecordDict(
                {
                    "arrays": ArrayRecord({"piece": FlowerArray(piece)}),
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
