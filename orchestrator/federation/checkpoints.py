"""Where an order goes on after a crash: the weights of its last average, and what that round has so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.federation.entries import Entry
from orchestrator.federation.orders import AcceptedOrder, RunFolder
from policies.wire.instructions import Blob

FILE = "checkpoint.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last durable average of an order.

    Attributes:
        round: of the average; 0 before the first.
        weights: what the stations start from next; None where an order has no weights.
        entry: what the round has so far, its evaluation still missing.
        previous: what the stations started from in that round.
        releases: every update that was seen, to be deleted at the end where a station sends one again.
        strategy: what the strategy kept after that round: its moments by name, each a file.
    """

    round: int
    weights: Blob | None
    entry: Entry
    previous: Blob | None = None
    releases: tuple[str, ...] = ()
    strategy: Mapping[str, Blob] = field(default_factory=dict)


def read_checkpoint(folder: RunFolder, accepted: AcceptedOrder) -> Checkpoint:
    """Read where to go on; the order's initial weights where nothing was averaged yet."""
    kept = folder.read_json(FILE)
    if kept is None:
        initial = accepted.order.initial_weights
        return Checkpoint(0, Blob(digest=initial.digest, size=initial.size) if initial else None, {})
    return Checkpoint(
        round=int(kept["round"]),
        weights=_blob(kept.get("weights")),
        entry=kept.get("entry", {}),
        previous=_blob(kept.get("previous_weights")),
        releases=tuple(kept.get("releases", ())),
        strategy={name: Blob.model_validate(blob) for name, blob in kept.get("strategy", {}).items()},
    )


def write_checkpoint(folder: RunFolder, checkpoint: Checkpoint) -> None:
    """Replace where to go on, durably."""
    value: dict[str, Any] = {
        "round": checkpoint.round,
        "weights": checkpoint.weights.model_dump() if checkpoint.weights else None,
        "previous_weights": checkpoint.previous.model_dump() if checkpoint.previous else None,
        "entry": checkpoint.entry,
        "releases": list(checkpoint.releases),
        "strategy": {name: blob.model_dump() for name, blob in checkpoint.strategy.items()},
    }
    folder.write_json(FILE, value)


def _blob(value: object) -> Blob | None:
    return Blob.model_validate(value) if isinstance(value, dict) else None
