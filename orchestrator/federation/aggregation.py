"""Turns the stations' deltas into the next weights, a piece of a tensor at a time.

A release holds deltas from the inbound weights, in the policy's precision. For each piece of each float tensor the
weights of every station (inbound + delta, in float32 or wider) go to the order's strategy (`orchestrator.federation.strategies`),
with the piece of its moments where it keeps any, and the results to the new files. What is resident is a few pieces per station,
the smaller the more stations there are: whatever the size of the model.

Integer and boolean tensors (a BatchNorm's `num_batches_tracked`) have no meaningful mean, and Flower would turn them
into float64: they are taken from the station with the most examples, the first by name among equals; under a strategy that
withstands hostile stations the middle one of all is taken, of each number. What the policy withholds stays as it was.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from orchestrator.federation.strategies.elementwise import Rule
from orchestrator.federation.strategies.state import Moments, State, StateFiles, moment_shapes
from orchestrator.federation.strategies.strategy import Strategy, make_strategy
from orchestrator.federation.strategies.update import Floats, NotFiniteError, TooFewUpdatesError, Update
from policies.errors import StorageError
from policies.files import sync_folder
from policies.outputs import DType
from policies.wire.arrays import (
    FLOAT_DTYPES,
    Array,
    TensorEntry,
    TensorShape,
    chunks_of,
    open_tensor,
    raw_dtype,
    read_layout,
)
from policies.wire.arrays_writing import ArraysWriter, WrittenArrays
from policies.wire.floats import as_float, from_float
from policies.wire.instructions import Blob

__all__ = [
    "Aggregated",
    "NotFiniteError",
    "TooFewUpdatesError",
    "Update",
    "aggregate",
    "make_strategy",
    "weighted_means",
]

_PIECES_ELEMENTS = 1 << 20
_MOST_ELEMENTS, _FEWEST_ELEMENTS = 1 << 18, 1 << 12
"""Elements of all stations, and of one, that are worked on at once: 1 MiB of float32 of each of the first four stations, of which
Flower's records take some ten copies."""


@dataclass(frozen=True, slots=True)
class Aggregated:
    """What a round's updates came to.

    Attributes:
        weights: the new weights; the file is durable.
        left_out: stations whose updates the strategy did not use, by name.
        state: what the strategy keeps for the next round; the files are durable.
    """

    weights: Blob
    left_out: tuple[str, ...] = ()
    state: State = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inbound:
    """What a round's training started from.

    Attributes:
        weights: the file.
        buffers: names of tensors that are no parameters; an optimiser at the orchestrator leaves them their mean.
        state: what the strategy kept after the round before; empty in the first.
    """

    weights: Path
    buffers: frozenset[str] = frozenset()
    state: State = field(default_factory=dict)


def aggregate(
    strategy: Strategy,
    round_: int,
    inbound: Inbound,
    updates: Sequence[Update],
    files: StateFiles,
) -> Aggregated:
    """Write the next weights and what the strategy keeps; both are durable on return, and nothing older is touched.

    The same call makes the same bytes, in whatever order the updates come.

    Args:
        strategy: from `make_strategy`.
        round_: Flower's server round.
        inbound: what the stations started from, and the strategy.
        updates: at least one; all with the same tensors, each one of the inbound weights'.
        files: where the strategy's moments lie; the weights go beside the inbound ones, named by their digest.

    Raises:
        NotFiniteError: a delta is not finite, or what they come to.
        TooFewUpdatesError: the strategy takes more.
        StrategyStateError: the moments of the round before are missing or damaged.
        StorageError: the disk.
    """
    kept = strategy.select(updates)
    taken = _Taken(kept, elements_at_once(len(kept)))
    step = _Step.of(strategy, round_, inbound, taken, files)
    # Named by the order: several write beside each other.
    temporary = inbound.weights.parent / unfinished_name(files.folder.parent.name)
    with ExitStack() as stack:
        stack.enter_context(np.errstate(over="ignore", invalid="ignore"))
        writer = stack.enter_context(ArraysWriter(temporary, step.tensors))
        moments = {
            name: stack.enter_context(files.writer(name, step.shapes)) for name in strategy.rule.moments
        }
        for entry in writer.layout.entries:
            for piece, after in step.pieces(entry):
                writer.write(entry.name, piece)
                for name, values in after.items():
                    moments[name].write(step.shapes[entry.name].name, values)
        state = {name: files.close(moment) for name, moment in moments.items()}
        written = writer.close()
    blob = _in_place(temporary, written)
    names = {update.station for update in kept}
    left_out = sorted(update.station for update in updates if update.station not in names)
    return Aggregated(blob, tuple(left_out), state)


def _in_place(temporary: Path, written: WrittenArrays) -> Blob:
    """Give the new weights the name by which they are served, durably."""
    blob = Blob(digest=written.digest, size=written.size)
    try:
        # The front, possibly another user of the same group, serves it.
        temporary.chmod(0o640)
        temporary.replace(temporary.with_name(blob.digest.removeprefix("sha256:")))
        sync_folder(temporary.parent)
    except OSError as error:
        raise StorageError(f"cannot write the new weights ({error.strerror})") from error
    return blob


def unfinished_name(order: str) -> str:
    """Return the name of the file that an order's next weights are written to, among the blobs, until they are whole."""
    return f".{order}.new"


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


def elements_at_once(stations: int) -> int:
    """Return how many elements of each station's update are worked on at once.

    >>> elements_at_once(3), elements_at_once(100)
    (262144, 10485)
    """
    return max(_FEWEST_ELEMENTS, min(_MOST_ELEMENTS, _PIECES_ELEMENTS // max(1, stations)))


_Place = tuple[Path, TensorEntry]


@dataclass(frozen=True, slots=True)
class _Step:
    """One round's step from the inbound weights to the next, tensor by tensor.

    Attributes:
        tensors: of the weights, before and after.
        entries: where each begins in the inbound file.
        shapes: of the tensors that the strategy keeps moments of, by the weights' names.
        before: the moments after the round before, in the order of the strategy's; empty in the first.
    """

    strategy: Strategy
    round: int
    inbound: Inbound
    taken: "_Taken"
    tensors: tuple[TensorShape, ...]
    entries: dict[str, TensorEntry]
    shapes: dict[str, TensorShape]
    before: "list[Moments]"

    @classmethod
    def of(
        cls, strategy: Strategy, round_: int, inbound: Inbound, taken: "_Taken", files: StateFiles
    ) -> "_Step":
        """Read what the step starts from."""
        layout, names = read_layout(inbound.weights), strategy.rule.moments
        shapes = moment_shapes(
            entry.tensor
            for entry in layout.entries
            if names
            and _is_float(entry)
            and entry.name in taken.released
            and entry.name not in inbound.buffers
        )
        before = files.read(inbound.state, shapes)
        return cls(
            strategy,
            round_,
            inbound,
            taken,
            layout.tensors,
            layout.by_name(),
            shapes,
            [before[name] for name in names] if before else [],
        )

    def pieces(self, entry: TensorEntry) -> Iterator[tuple[Array, dict[str, Array]]]:
        """Yield the next numbers of a tensor, piece by piece, each with its moments by name."""
        name, taken, strategy = entry.name, self.taken, self.strategy
        place = (self.inbound.weights, self.entries[name])
        if name not in taken.released:
            plain = chunks_of(open_tensor(*place), taken.elements)
        elif not _is_float(entry):
            plain = taken.integers(place, middle=strategy.integers == "middle")
        elif name not in self.shapes:
            rule = strategy.buffers if name in self.inbound.buffers else strategy.rule
            plain = (piece for piece, _ in taken.floats(rule, self.round, place, ()))
        else:
            kept = strategy.rule.moments
            for piece, after in taken.floats(strategy.rule, self.round, place, self.before):
                yield piece, dict(zip(kept, after, strict=True))
            return
        for piece in plain:
            yield piece, {}


class _Taken:
    """The updates that are combined."""

    def __init__(self, updates: Sequence[Update], elements: int) -> None:
        self.elements = elements
        self._deltas = [(update.delta, read_layout(update.delta).by_name()) for update in updates]
        self._examples = [update.num_examples for update in updates]
        self._heaviest = int(np.argmax(self._examples))
        self.released = self._deltas[self._heaviest][1].keys()

    def floats(
        self, rule: Rule, round_: int, inbound: _Place, before: Sequence[Moments]
    ) -> Iterator[tuple[Array, list[Array]]]:
        """Yield the next weights of one tensor, piece by piece, each with its moments."""
        dtype, name = inbound[1].tensor.dtype, inbound[1].name
        places = [(path, tensors[name]) for path, tensors in self._deltas]
        files = [self._pieces(open_tensor(*place)) for place in places]
        moments = [self._pieces(each.open(name)) for each in before]
        for base in self._pieces(open_tensor(*inbound)):
            start = as_float(base, dtype)
            moved = []
            for file, (_, entry) in zip(files, places, strict=True):
                step = as_float(next(file), entry.tensor.dtype)
                _require_finite(step, "an update")
                moved.append(start + step)
            # Stored in float32 or float64: as they are.
            kept = [as_float(next(file), _stored(start)) for file in moments] if before else None
            result, after = rule.combine(round_, start, moved, self._examples, kept)
            piece = from_float(result, dtype)
            for values in (as_float(piece, dtype), *after):
                _require_finite(values, "what the updates come to")
            yield piece, [np.asarray(each) for each in after]

    def integers(self, inbound: _Place, *, middle: bool) -> Iterator[Array]:
        """Yield the next integers of one tensor."""
        name, raw = inbound[1].name, raw_dtype(inbound[1].tensor.dtype)
        used = self._deltas if middle else [self._deltas[self._heaviest]]
        files = [self._pieces(open_tensor(path, tensors[name])) for path, tensors in used]
        for base in self._pieces(open_tensor(*inbound)):
            steps = np.sort(np.stack([next(file).astype(np.int64) for file in files]), axis=0)
            yield (base.astype(np.int64) + steps[(len(steps) - 1) // 2]).astype(raw)

    def _pieces(self, items: Array) -> Iterator[Array]:
        return chunks_of(items, self.elements)


def _stored(start: Floats) -> DType:
    return "float64" if start.dtype == np.float64 else "float32"


def _is_float(entry: TensorEntry) -> bool:
    return entry.tensor.dtype in FLOAT_DTYPES


def _require_finite(values: Floats | Array, what: str) -> None:
    if not np.isfinite(values).all():
        raise NotFiniteError(f"{what} is not finite")
