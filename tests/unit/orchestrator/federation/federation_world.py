"""An order on a simulated grid: its folder, a blob folder, and stations that release a step of their number."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from federation_samples import NAMES, manifest, run_order
from grid_simulator import Answer, GridSimulator
from safetensors.numpy import load_file, save

from orchestrator.federation.exchange import Exchange
from orchestrator.federation.orders import AcceptedOrder, FolderQueue, RunFolder, Timing
from orchestrator.federation.rounds import Rounds
from orchestrator.federation.updates import update_path
from policies.blobs import BlobFolder
from policies.documents import digest_of
from policies.policy import ReleaseRules, TensorRules
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status

NODES = {name: number + 1 for number, name in enumerate(NAMES)}
WEIGHTS = save({"w": np.zeros(4, dtype=np.float32)})
ORDER = "sha256:" + "7" * 64


class World:
    """One order's folder, a blob folder, and stations that release a step of their number."""

    def __init__(self, path: Path) -> None:
        self.blobs = path / "blobs"
        self.put(WEIGHTS)
        self.queue = FolderQueue(path / "runs")
        self.behaviour: dict[str, Callable[[Instruction], Answer]] = {}
        self.grid = GridSimulator(
            {NODES[name]: self._station(name) for name in NAMES}, online=set(NODES.values())
        )

    def put(self, data: bytes) -> str:
        path = self.blobs / "sha256" / digest_of(data)[7:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return digest_of(data)

    def upload(self, name: str, data: bytes, order: str = ORDER) -> Blob:
        """As a station sends a release: for one order, apart from the blobs."""
        path = update_path(self.blobs, order, name, digest_of(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return Blob(digest=digest_of(data), size=len(data))

    def updates(self) -> list[Path]:
        return list(self.blobs.glob("updates/*/*/*"))

    def accept(
        self,
        metrics: tuple[str, ...] = ("loss", "auc"),
        tensors: TensorRules = TensorRules(),
        straggler_s: float = 0.2,
        number: int = 7,
        **changes: object,
    ) -> RunFolder:
        weights = {"digest": digest_of(WEIGHTS), "size": len(WEIGHTS)}
        return self.queue.submit(
            AcceptedOrder(
                order_digest="sha256:" + str(number) * 64,
                envelope="{}",
                order=run_order(**({"initial_weights": weights} | changes)),
                manifest=manifest(),
                release=ReleaseRules(tensors=tensors, metrics=metrics, maximum_bytes=1000),
                nodes=NODES,
                timing=Timing(prepare_s=5.0, prepare_grace_s=0.2, answer_s=5.0, straggler_s=straggler_s),
            )
        )

    def rounds(self, folder: RunFolder) -> Rounds:
        exchange = Exchange(self.grid, NODES, threading.Event(), poll_s=0.002)
        return Rounds(folder, BlobFolder(self.blobs), exchange)

    def answer_later(self, node: int, answer: Callable[[Instruction], Answer]) -> None:
        """Let a station answer now what it was silent about."""
        for message in self.grid.silent.pop(node, []):
            self.grid.reply(message, answer)

    def asked(self, name: str) -> list[str]:
        return [f"{entry.kind} {entry.round}" for node, entry in self.grid.asked if node == NODES[name]]

    def _station(self, name: str) -> Callable[[Instruction], Answer]:
        def behave(instruction: Instruction) -> Answer:
            now = self.behaviour.get(name, self.answer(name))
            return now(instruction)

        return behave

    def answer(self, name: str) -> Callable[[Instruction], Answer]:
        def reply(instruction: Instruction) -> Answer:
            fields: dict[str, object] = {
                "order_digest": instruction.order_digest, "kind": instruction.kind, "round": instruction.round, "num_examples": 10,
                "status": {Kind.PREPARE: Status.ACCEPTED, Kind.FINISH: Status.FINISHED}.get(
                    instruction.kind, Status.RELEASED
                ),
            }  # fmt: skip
            if instruction.kind is Kind.TRAIN:
                delta = save({"w": np.full(4, NODES[name], dtype=np.float32)})
                fields["release"] = self.upload(name, delta, instruction.order_digest)
                fields["metrics"] = {"loss": 1.0}
            return StationReply(**fields)

        return reply


def weights_after(world: World, folder: RunFolder) -> list[float]:
    """Return the weights after the last finished round."""
    digest = folder.read_rounds()[-1]["weights"]["digest"]
    return [float(value) for value in load_file(world.blobs / "sha256" / digest[7:])["w"]]
