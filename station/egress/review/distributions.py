"""What lies in a parked file of deltas, for a person: counts, norms, extremes and histograms, and how far it is from another file.

Worked out when it is shown, a piece at a time, so that memory does not grow with the model. Pure but for reading the files.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.documents import StrictModel
from policies.wire.arrays import TensorEntry, chunks_of, open_tensor, read_layout
from policies.wire.floats import as_float

BINS: Final = 41
"""Odd, so that one bin lies around zero."""
MOST_GROUPS: Final = 12
OTHERS: Final = "others"
_FLOATS: Final = frozenset({"float16", "bfloat16", "float32", "float64"})


class TensorView(StrictModel):
    """One tensor of what would leave; its name is one that the manifest declares or the initial weights have."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    norm: float
    minimum: float
    maximum: float
    zeros: int


class GroupView(StrictModel):
    """Tensors whose names begin alike, and how their numbers are spread.

    Attributes:
        edges: of the bins, one more than there are counts; as far to the left of zero as to its right.
    """

    name: str
    tensors: int
    elements: int
    norm: float
    minimum: float
    maximum: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


class DifferenceView(StrictModel):
    """How far two files of the same tensors are from each other.

    Attributes:
        norm: of their difference.
        earlier_norm: of the earlier one.
        cosine: of the angle between them; None where one of them is zero.
    """

    norm: float
    earlier_norm: float
    cosine: float | None


class ArraysView(StrictModel):
    """A whole file."""

    tensors: tuple[TensorView, ...]
    groups: tuple[GroupView, ...]
    elements: int
    norm: float


@dataclass(slots=True)
class _Figures:
    elements: int = 0
    squares: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    zeros: int = 0

    def take(self, values: NDArray[np.float64]) -> None:
        if not values.size:
            return
        self.elements += values.size
        self.squares += float(np.dot(values, values))
        self.minimum = min(self.minimum, float(values.min()))
        self.maximum = max(self.maximum, float(values.max()))
        self.zeros += int(values.size - np.count_nonzero(values))

    def bounds(self) -> tuple[float, float]:
        return (self.minimum, self.maximum) if self.elements else (0.0, 0.0)


@dataclass(slots=True)
class _Group:
    name: str
    entries: list[TensorEntry] = field(default_factory=list)
    figures: _Figures = field(default_factory=_Figures)


def look_at(path: Path) -> ArraysView:
    """Describe a file of deltas.

    Raises:
        WireError: it is no file of arrays.
        StorageError: it cannot be read.
    """
    entries = read_layout(path).entries
    tensors, groups = [], _grouped(entries)
    total = _Figures()
    for group in groups:
        for entry in group.entries:
            found = _Figures()
            for values in _values(path, entry):
                found.take(values)
                group.figures.take(values)
                total.take(values)
            tensors.append(_tensor_view(entry, found))
    order = {entry.name: place for place, entry in enumerate(entries)}
    return ArraysView(
        tensors=tuple(sorted(tensors, key=lambda tensor: order[tensor.name])),
        groups=tuple(_group_view(path, group) for group in groups),
        elements=total.elements,
        norm=math.sqrt(total.squares),
    )


def distance(path: Path, earlier: Path) -> DifferenceView | None:
    """Compare two files of deltas; None where they do not hold the same tensors.

    Raises:
        WireError, StorageError: as `look_at`.
    """
    now, before = read_layout(path).by_name(), read_layout(earlier).by_name()
    if {name: entry.tensor for name, entry in now.items()} != {n: e.tensor for n, e in before.items()}:
        return None
    apart = squares = earlier_squares = product = 0.0
    for name, entry in now.items():
        for one, other in zip(_values(path, entry), _values(earlier, before[name]), strict=True):
            apart += float(np.dot(one - other, one - other))
            squares += float(np.dot(one, one))
            earlier_squares += float(np.dot(other, other))
            product += float(np.dot(one, other))
    lengths = math.sqrt(squares) * math.sqrt(earlier_squares)
    return DifferenceView(
        norm=math.sqrt(apart),
        earlier_norm=math.sqrt(earlier_squares),
        cosine=product / lengths if lengths else None,
    )


def _values(path: Path, entry: TensorEntry) -> Iterator[NDArray[np.float64]]:
    dtype = entry.tensor.dtype
    for items in chunks_of(open_tensor(path, entry)):
        yield (as_float(items, dtype) if dtype in _FLOATS else items).astype(np.float64)


def _grouped(entries: Sequence[TensorEntry]) -> list[_Group]:
    """Deal tensors out to a few groups: by as much of the beginning of their names as leaves few enough."""
    names = [entry.name.split(".") for entry in entries]
    deepest = max((len(parts) for parts in names), default=1)
    depth = 1
    while depth < deepest and len({tuple(parts[: depth + 1]) for parts in names}) <= MOST_GROUPS:
        depth += 1
    groups: dict[str, _Group] = {}
    for entry, parts in zip(entries, names, strict=True):
        name = ".".join(parts[:depth])
        groups.setdefault(name, _Group(name)).entries.append(entry)
    if len(groups) <= MOST_GROUPS:
        return list(groups.values())
    by_size = sorted(groups.values(), key=lambda group: -_elements(group.entries))
    rest = _Group(OTHERS, [entry for group in by_size[MOST_GROUPS - 1 :] for entry in group.entries])
    return [*by_size[: MOST_GROUPS - 1], rest]


def _elements(entries: Iterable[TensorEntry]) -> int:
    return sum(entry.tensor.elements for entry in entries)


def _tensor_view(entry: TensorEntry, found: _Figures) -> TensorView:
    minimum, maximum = found.bounds()
    return TensorView(
        name=entry.name,
        dtype=entry.tensor.dtype,
        shape=entry.tensor.shape,
        elements=found.elements,
        norm=math.sqrt(found.squares),
        minimum=minimum,
        maximum=maximum,
        zeros=found.zeros,
    )


def _group_view(path: Path, group: _Group) -> GroupView:
    minimum, maximum = group.figures.bounds()
    reach = max(abs(minimum), abs(maximum)) or 1.0
    edges = np.linspace(-reach, reach, BINS + 1)
    counts = np.zeros(BINS, np.int64)
    for entry in group.entries:
        for values in _values(path, entry):
            counts += np.histogram(values, edges)[0]
    return GroupView(
        name=group.name,
        tensors=len(group.entries),
        elements=group.figures.elements,
        norm=math.sqrt(group.figures.squares),
        minimum=minimum,
        maximum=maximum,
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
    )
