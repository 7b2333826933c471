"""Krum: which updates lie nearest to the others (Blanchard et al., "Machine Learning with Adversaries", 2017).

The one strategy that looks across tensors. A first pass over the memory-mapped files adds up, block by block and in float64, the
squared distances between every two updates, over all float tensors that were released; the mean of those that are kept is the second
pass. Distances between deltas are those between weights, without the rounding of the weights, and summed from differences, so that
two equal updates are at distance 0. With n stations it costs n (n - 1) / 2 subtractions for each number.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.federation.strategies.update import Floats, NotFiniteError, TooFewUpdatesError, Update
from policies.strategies import fewest_updates
from policies.wire.arrays import FLOAT_DTYPES, chunks_of, open_tensor, read_layout
from policies.wire.floats import as_float

BLOCK_ELEMENTS = 1 << 14
"""Numbers of each update that are compared at once: in float64 they stay in a processor's cache."""


def select(updates: Sequence[Update], hostile: int, keep: int) -> list[Update]:
    """Return the updates that Krum keeps, in the order given.

    1. Of each update, the squared distances to its n - f - 2 nearest others are summed (at least to one).
    2. The `keep` smallest sums win; of equal ones the first given.

    Args:
        updates: in an order that does not depend on who answered first.
        hostile: f, how many of them may be anything.
        keep: how many are kept.

    Raises:
        TooFewUpdatesError: fewer than 2 f + 3, or than f + 2 more than are kept.
        NotFiniteError: an update is not finite.
    """
    least = fewest_updates("Krum", {"num_malicious_nodes": hostile, "num_nodes_to_select": keep})
    if len(updates) < least:
        raise TooFewUpdatesError(f"Krum takes {least} updates")
    distances = squared_distances(updates)
    nearest = max(1, len(updates) - hostile - 2)
    np.fill_diagonal(distances, np.inf)
    scores = np.sort(distances, axis=1)[:, :nearest].sum(axis=1)
    kept = sorted(np.argsort(scores, kind="stable")[:keep].tolist())
    return [updates[number] for number in kept]


def squared_distances(updates: Sequence[Update]) -> NDArray[np.float64]:
    """Return the squared Euclidean distances between updates, shape (n, n), over all their float tensors.

    Raises:
        NotFiniteError: an update is not finite.
    """
    layouts = [read_layout(update.delta).by_name() for update in updates]
    found = np.zeros((len(updates), len(updates)))
    # A distance that overflows is infinite, which is what it counts as.
    with np.errstate(over="ignore"):
        for name, first in sorted(layouts[0].items()):
            if first.tensor.dtype not in FLOAT_DTYPES:
                continue
            entries = [layout[name] for layout in layouts]
            mapped = [
                chunks_of(open_tensor(update.delta, entry), BLOCK_ELEMENTS)
                for update, entry in zip(updates, entries, strict=True)
            ]
            for pieces in zip(*mapped, strict=True):
                block = [
                    as_float(piece, entry.tensor.dtype).astype(np.float64)
                    for piece, entry in zip(pieces, entries, strict=True)
                ]
                _add(found, block)
    return found


def _add(found: NDArray[np.float64], block: Sequence[Floats]) -> None:
    if not all(np.isfinite(each).all() for each in block):
        raise NotFiniteError("an update is not finite")
    away = np.empty_like(block[0])
    for one in range(len(block)):
        for other in range(one + 1, len(block)):
            np.subtract(block[one], block[other], out=away)
            # Not a dot product: how many threads a library has for that changes its last bits.
            squared = float(np.einsum("i,i->", away, away))
            found[one, other] += squared
            found[other, one] += squared
