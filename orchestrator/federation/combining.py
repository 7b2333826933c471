"""An order's strategy at work: from the updates of a round to weights and moments that its checkpoint may name."""

from collections.abc import Sequence

from orchestrator.federation.aggregation import (
    Aggregated,
    Inbound,
    NotFiniteError,
    TooFewUpdatesError,
    Update,
    aggregate,
    make_strategy,
    unfinished_name,
)
from orchestrator.federation.carried import Carried, RunFailedError
from orchestrator.federation.checkpoints import Checkpoint
from orchestrator.federation.strategies import StateFiles, StrategyStateError
from policies.errors import StateError
from policies.wire.arrays import read_layout

FOLDER = "strategy"


class Combining:
    """The strategy that the order names, and the run's folder of what it keeps."""

    def __init__(self, run: Carried) -> None:
        self._run = run
        self._strategy = make_strategy(run.order.strategy) if "train" in run.order.stages else None
        self._files = StateFiles(run.folder.path / FOLDER)

    def combine(self, round_: int, checkpoint: Checkpoint, updates: Sequence[Update]) -> Aggregated:
        """Write the weights and moments of a round; the checkpoint's are left as they are.

        Raises:
            RunFailedError: the updates come to no model, or what the strategy kept is gone.
        """
        if checkpoint.weights is None or self._strategy is None:
            raise StateError("training without weights")
        path = self._run.blobs.path(checkpoint.weights.digest)
        outputs = self._run.accepted.manifest.outputs.tensors
        listed = {spec.name: spec.role for spec in outputs.listed} if outputs else {}
        buffers = frozenset(
            tensor.name
            for tensor in read_layout(path).tensors
            if outputs and (listed.get(tensor.name) or outputs.role_of(tensor.name)) == "buffer"
        )
        inbound = Inbound(path, buffers, checkpoint.strategy)
        try:
            return aggregate(self._strategy, round_, inbound, updates, self._files)
        except NotFiniteError as error:
            raise RunFailedError("AGGREGATE_NOT_FINITE") from error
        except TooFewUpdatesError as error:
            raise RunFailedError("TOO_FEW_STATIONS_ANSWERED") from error
        except StrategyStateError as error:
            raise RunFailedError("STRATEGY_STATE_ABSENT") from error

    def settle(self, checkpoint: Checkpoint) -> None:
        """Remove moments that no checkpoint names any more; call it with one that is durable."""
        self._files.keep_only(checkpoint.strategy)

    def clear(self) -> None:
        """Remove what a process that was killed had begun to write: of a large model that is much."""
        name = unfinished_name(self._run.folder.path.name)
        blobs = self._run.blobs.path("sha256:" + "0" * 64).parent
        for path in blobs.glob(f"*{name}*") if blobs.is_dir() else ():
            path.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove all moments: the order is finished."""
        self._files.keep_only({})
