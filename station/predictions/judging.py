"""Whether what a train answered to `predict` is what its manifest declares, of the very image that it was asked about.

What came is a stranger's word. It is taken whole or not at all: each declared label map of the image's own shape, in bytes, with no number
that stands for no segment; numbers that are declared, each within its range. Nothing else may be in it. Needs no settings and no database.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from policies.errors import StateError, WireError
from policies.predictions import Prediction
from policies.wire.arrays import ArrayLimits, TensorEntry, chunks_of, open_tensor, read_layout
from station.sandbox.spec import TrainReply

_NIFTI_DIM_AT: Final = 40
HEADER_BYTES: Final = 64 << 10
"""Of the arrays of one answer: what is not label maps."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer that is what was declared.

    Attributes:
        arrays: the file that its label maps lie in.
        marks: where, by prediction.
        marked: how many voxels of each segment, by prediction and in the order of the segments; for the dry run.
        measured: the numbers by name.
    """

    arrays: Path | None
    marks: Mapping[str, TensorEntry]
    marked: Mapping[str, tuple[int, ...]]
    measured: Mapping[str, float]


def arrays_limit(predictions: tuple[Prediction, ...], shape: tuple[int, ...]) -> int:
    """Return how many bytes of arrays an answer about an image of this shape may have; 0 where none are declared."""
    maps = sum(prediction.kind == "segmentation" for prediction in predictions)
    return maps * math.prod(shape) + HEADER_BYTES if maps else 0


def shape_of(image: Path) -> tuple[int, ...]:
    """Return the shape of a cohort's image as readers give it, from its own header: the station wrote it.

    Raises:
        StateError: it cannot be read.
    """
    try:
        with image.open("rb") as file:
            dimensions: Sequence[int] = struct.unpack_from("<8h", file.read(64), _NIFTI_DIM_AT)
    except (OSError, struct.error) as error:
        raise StateError("cohort: an image cannot be read", hint="Freeze the cohort again.") from error
    count = dimensions[0]
    if count not in {2, 3} or min(dimensions[1 : 1 + count]) < 1:
        raise StateError("cohort: an image has another form than it was written in", hint="Freeze it again.")
    return tuple(dimensions[1 : 1 + count])


def judge(reply: TrainReply, predictions: tuple[Prediction, ...], shape: tuple[int, ...]) -> Judged | str:
    """Return an answer as what it is, or what is wrong with it, in words of our own.

    Args:
        reply: a train's.
        predictions: what its manifest declares.
        shape: of the image, as NIfTI readers give it.

    Raises:
        StorageError: its file cannot be read.
    """
    segmentations = {each.name: each for each in predictions if each.kind == "segmentation"}
    measured = _measured(reply, predictions)
    if isinstance(measured, str):
        return measured
    if reply.arrays is None:
        return "it has no label map" if segmentations else Judged(None, {}, {}, measured)
    try:
        layout = read_layout(
            reply.arrays,
            ArrayLimits(arrays_limit(predictions, shape), HEADER_BYTES, max(1, len(segmentations))),
        )
    except WireError:
        return "its arrays cannot be read"
    entries = layout.by_name()
    if set(entries) != set(segmentations):
        return "its label maps are not the declared ones"
    marked: dict[str, tuple[int, ...]] = {}
    for name, entry in entries.items():
        if entry.tensor.dtype != "uint8":
            return "a label map is not of bytes (uint8)"
        if entry.tensor.shape != shape:
            return "a label map has not the image's own shape"
        segments = len(segmentations[name].segments)
        counts = np.zeros(256, np.int64)
        for chunk in chunks_of(open_tensor(reply.arrays, entry)):
            counts += np.bincount(chunk, minlength=256)
        if counts[segments + 1 :].any():
            return "a label map has a number that stands for no segment"
        marked[name] = tuple(int(count) for count in counts[1 : segments + 1])
    return Judged(reply.arrays, entries, marked, measured)


def _measured(reply: TrainReply, predictions: tuple[Prediction, ...]) -> dict[str, float] | str:
    declared = {value.name: value for prediction in predictions for value in prediction.values}
    found: dict[str, float] = {}
    for name, number in reply.metrics.items():
        if name not in declared:
            return "it states a number that is not declared"
        if isinstance(number, bool) or not isinstance(number, int | float):
            return "a measurement is no number"
        # Also of what is no finite number, and of a whole one that no float holds.
        if not declared[name].minimum <= number <= declared[name].maximum:
            return "a measurement lies outside its range"
        found[name] = float(number)
    return found
