"""Where an order goes on after a crash: the weights of its last average, and what that round has so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.federation.carried import RunFailedError
from orchestrator.federation.entries import Entry
from orchestrator.federation.orders import AcceptedOrder, RunFolder
from policies.wire.instructions import Blob

FILE = "checkpoint.json"
CHECKPOINT_DAMAGED: Final = "CHECKPOINT_DAMAGED"
"""The run's files do not say where to go on: it fails, and what is there is left for its operator."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last durable average of an order.

    Attributes:
        round: of the average; 0 before the first.
        weights: what the stations start from next; None where an order has no weights.
        entry: what the round has so far, its evaluation still missing.
        previous: what the stations started from in that round.
        strategy: what the strategy kept after that round: its moments by name, each a file.
    """

    round: int
    weights: Blob | None
    entry: Entry
    previous: Blob | None = None
    strategy: Mapping[str, Blob] = field(default_factory=dict)


def read_checkpoint(folder: RunFolder, accepted: AcceptedOrder) -> Checkpoint:
    """Read where to go on; the order's initial weights where nothing was averaged yet.

    Raises:
        RunFailedError: what is there is no place to go on from: it is damaged, missing, or does not continue the rounds on record.
    """
    rounds = folder.rounds
    if rounds.is_damaged():
        raise RunFailedError(CHECKPOINT_DAMAGED)
    count = rounds.count()
    given = accepted.order.initial_weights
    initial = Blob(digest=given.digest, size=given.size) if given else None
    if not (folder.path / FILE).exists():
        if count and "train" in accepted.order.stages:
            raise RunFailedError(CHECKPOINT_DAMAGED)
        return Checkpoint(0, initial, {})
    found = _parse(folder.read_json(FILE))
    before = _weights(rounds.read(after=count - 1)) if count else initial
    # The last entry's own, or the next round's, which began with those.
    ends_at = found.weights if found and found.round == count else found.previous if found else None
    if found is None or found.round not in {count, count + 1} or not found.round or ends_at != before:
        raise RunFailedError(CHECKPOINT_DAMAGED)
    return found


def _parse(kept: dict[str, Any] | None) -> Checkpoint | None:
    if kept is None:
        return None
    try:
        return Checkpoint(
            round=int(kept["round"]),
            weights=_blob(kept["weights"]),
            entry=dict(kept["entry"]),
            previous=_blob(kept["previous_weights"]),
            strategy={name: Blob.model_validate(blob) for name, blob in kept.get("strategy", {}).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _weights(entries: list[dict[str, Any]]) -> Blob | None:
    try:
        return _blob(entries[-1].get("weights")) if entries else None
    except ValueError:
        return None


def write_checkpoint(folder: RunFolder, checkpoint: Checkpoint) -> None:
    """Replace where to go on, durably."""
    value: dict[str, Any] = {
        "round": checkpoint.round,
        "weights": checkpoint.weights.model_dump() if checkpoint.weights else None,
        "previous_weights": checkpoint.previous.model_dump() if checkpoint.previous else None,
        "entry": checkpoint.entry,
        "strategy": {name: blob.model_dump() for name, blob in checkpoint.strategy.items()},
    }
    folder.write_json(FILE, value)


def _blob(value: object) -> Blob | None:
    return Blob.model_validate(value) if isinstance(value, dict) else None
