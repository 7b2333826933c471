"""One order under FedAdam on simulated stations, in a process that may end itself with SIGKILL at a named moment.

    python rounds_to_kill.py FOLDER [MOMENT ROUND]

A station's step depends on its name and the round alone, as a recorded release does.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from federation_samples import NAMES, manifest, run_order
from flwr.supercore.task_identity import TaskIdentity
from grid_simulator import Answer, GridSimulator
from safetensors.numpy import save

from orchestrator.federation import combining, rounds
from orchestrator.federation.combining import Combining
from orchestrator.federation.exchange import Exchange
from orchestrator.federation.orders import AcceptedOrder, FolderQueue, RunFolder, Timing
from orchestrator.federation.strategies import StateFiles
from orchestrator.federation.updates import update_path
from policies.blobs import BlobFolder
from policies.documents import digest_of
from policies.policy import ReleaseRules, TensorRules
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status

ORDER = "sha256:" + "7" * 64
NODES = {name: number + 1 for number, name in enumerate(NAMES)}
SHAPES = {"a": (700, 500), "b": (31,), "scalar": ()}
ROUNDS = 4


def _model(seed: int, spread: float = 1.0) -> bytes:
    random = np.random.default_rng(seed)
    return save(
        {key: np.asarray(spread * random.normal(size=shape), np.float32) for key, shape in SHAPES.items()}
    )


def _put(blobs: Path, data: bytes) -> Blob:
    return _put_at(blobs / "sha256" / digest_of(data)[7:], data)


def _put_at(path: Path, data: bytes) -> Blob:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Blob(digest=digest_of(data), size=len(data))


def _station(blobs: Path, name: str, *, far: bool) -> Callable[[Instruction], Answer]:
    def reply(instruction: Instruction) -> Answer:
        fields: dict[str, Any] = {
            "order_digest": ORDER,
            "kind": instruction.kind,
            "round": instruction.round,
            "num_examples": 10 * NODES[name],
            "status": {Kind.PREPARE: Status.ACCEPTED, Kind.FINISH: Status.FINISHED}.get(
                instruction.kind, Status.RELEASED
            ),
        }
        if instruction.kind is Kind.TRAIN:
            step = _model(1000 * instruction.round + NODES[name], 100.0 if far else 1.0)
            fields["release"] = _put_at(update_path(blobs, ORDER, name, digest_of(step)), step)
            fields["metrics"] = {"loss": 1.0}
        return StationReply(**fields)

    return reply


def _accept(place: Path, strategy: Mapping[str, object]) -> RunFolder:
    weights = _put(place / "blobs", _model(0)).model_dump()
    order = run_order(
        initial_weights=weights,
        strategy=strategy,
        rounds=ROUNDS,
        stages=["train"],
        minimum_stations=3,
        expires="2199-01-01T00:00:00Z",
    )
    return FolderQueue(place / "runs").submit(
        AcceptedOrder(
            order_digest=ORDER,
            envelope="{}",
            order=order,
            manifest=manifest(),
            release=ReleaseRules(tensors=TensorRules(), metrics=("loss",), maximum_bytes=1 << 30),
            nodes=NODES,
            timing=Timing(prepare_s=600.0, answer_s=600.0, straggler_s=600.0),
        )
    )


def order_at(place: Path, strategy: Mapping[str, object], far: Collection[str] = ()) -> rounds.Rounds:
    """The order, from wherever it is; the stations of `far` step a hundred times as far as the others."""
    blobs = place / "blobs"
    stations = {NODES[name]: _station(blobs, name, far=name in far) for name in NAMES}
    exchange = Exchange(
        GridSimulator(stations, online=set(NODES.values())), NODES, threading.Event(), poll_s=0.002
    )
    return rounds.Rounds(_accept(place, strategy), BlobFolder(blobs), exchange)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(moment: str, at: int) -> None:
    """End this process at a moment of a round.

    moments: one file of moments is durable, the other and the weights are not. aggregated: all of them are, and the checkpoint names
    those before. checkpointed: it names the new ones, and the old ones are still there.
    """
    now = {"round": 0}
    aggregate, close, settle = combining.aggregate, StateFiles.close, Combining.settle

    def watched_aggregate(strategy: Any, round_: int, *rest: Any) -> Any:
        now["round"] = round_
        found = aggregate(strategy, round_, *rest)
        if (moment, at) == ("aggregated", round_):
            _die()
        return found

    def watched_close(self: Any, writer: Any) -> Any:
        blob = close(self, writer)
        if (moment, at) == ("moments", now["round"]):
            _die()
        return blob

    def watched_settle(self: Any, checkpoint: Any) -> None:
        if (moment, at) == ("checkpointed", now["round"]):
            _die()
        settle(self, checkpoint)

    combining.aggregate = watched_aggregate  # type: ignore[assignment]
    StateFiles.close = watched_close  # type: ignore[method-assign]
    Combining.settle = watched_settle  # type: ignore[method-assign]


def main() -> None:
    """Go on with the order, from wherever it is."""
    place = Path(sys.argv[1])
    if len(sys.argv) > 2:
        _arm(sys.argv[2], int(sys.argv[3]))
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    order_at(place, {"name": "FedAdam", "parameters": {"eta": 0.3}}).run()


if __name__ == "__main__":
    main()
