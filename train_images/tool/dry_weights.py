"""The weights of a dry run's next round: what federated averaging over one station would make of its release."""

from pathlib import Path

import numpy as np

from policies.wire.arrays import FLOAT_DTYPES, TensorEntry, open_tensor, raw_dtype, read_layout
from policies.wire.arrays_writing import ArraysWriter
from policies.wire.floats import as_float, from_float


def apply_delta(inbound: Path, delta: Path, out: Path) -> None:
    """Write `inbound` plus the released deltas; a tensor that was not released stays as it is.

    Args:
        inbound: the weights that the round started from.
        delta: the guard's release.
        out: the file to write.

    Raises:
        StorageError: it cannot be written.
    """
    before = {entry.tensor.name: entry for entry in read_layout(inbound).entries}
    released = {entry.tensor.name: entry for entry in read_layout(delta).entries}
    with ArraysWriter(out, [entry.tensor for entry in before.values()]) as writer:
        for entry in writer.layout.entries:
            name = entry.tensor.name
            items = open_tensor(inbound, before[name])
            if name in released:
                items = _sum(inbound, before[name], delta, released[name])
            writer.write(name, items)
        writer.close()


def _sum(
    inbound: Path, entry: TensorEntry, delta: Path, change: TensorEntry
) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    dtype = entry.tensor.dtype
    items, step = open_tensor(inbound, entry), open_tensor(delta, change)
    if dtype in FLOAT_DTYPES:
        return from_float(as_float(items, dtype) + as_float(step, change.tensor.dtype), dtype)
    return (items.astype(np.int64) + step.astype(np.int64)).astype(raw_dtype(dtype))
