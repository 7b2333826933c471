"""A federation for tests: a real SuperLink with node authentication, the run worker, and our agents with a plain handler."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from orchestrator.federation.orders import AcceptedOrder, FolderQueue, RunFolder, Timing
from orchestrator.federation.superlink import SuperLink
from orchestrator.federation.worker import RunWorker, WorkerFiles
from policies.documents import digest_of
from policies.manifest import TrainManifest
from policies.order import RunOrder
from policies.policy import ReleaseRules, TensorRules
from policies.wire.http import openssh_public_key
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status
from station.agent import Agent, FleetConnection, Pace

NAMES = ("amstel", "berkel", "dommel")
PACE = Pace(fast_s=0.02, slow_s=0.1, idle_s=0.1, heartbeat_s=2.0, check_s=1.0, grace_s=2.0)


def manifest() -> TrainManifest:
    return TrainManifest.model_validate_json(
        """
        {"schema_version": 1, "name": "trivial", "version": "1.0.0", "title": "Adds one", "kind": "training",
         "interface": "flower",
         "data": {"modalities": ["DX"], "profile": "thorax-1@1"},
         "hyperparameters": {"step": {"type": "float", "minimum": 0.0, "maximum": 10.0, "default": 1.0}},
         "outputs": {"tensors": {"layout": "same-as-input", "buffers": ["*count"]},
                     "metrics": [
                       {"key": "loss", "stage": "train", "minimum": 0, "maximum": 100, "split": "training"},
                       {"key": "auc", "stage": "evaluate", "minimum": 0, "maximum": 1, "split": "validation"}]},
         "resources": {"memory_mib": 256, "cpus": 1},
         "contact": {"name": "A", "organisation": "B", "email": "a@b.nl"}, "licence": "Apache-2.0",
         "source_commit": "unversioned"}
        """
    )


def weights() -> bytes:
    return save_arrays(
        {
            "layer.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
            "layer.bias": np.zeros(3, dtype=np.float32),
            "norm.count": np.array([7], dtype=np.int64),
        }
    )


def order(initial: bytes | None, *, rounds: int = 3, nonce: str = "0" * 32, **changes: object) -> RunOrder:
    fields: dict[str, object] = {
        "schema_version": 1,
        "order_id": nonce,
        "policy_id": "trivial",
        "policy_version": 1,
        "policy_digest": digest_of(b"policy"),
        "manifest_digest": digest_of(b"manifest"),
        "image_config_digest": digest_of(b"image"),
        "hyperparameters": {"step": 1.0},
        "initial_weights": None if initial is None else {"digest": digest_of(initial), "size": len(initial)},
        "stations": list(NAMES),
        "rounds": rounds,
        "stages": ["train", "evaluate"],
        "strategy": {"name": "FedAvg", "parameters": {}},
        "minimum_stations": 2,
        "nonce": nonce,
        "issued": "2026-11-22T00:00:00Z",
        "expires": "2199-12-22T00:00:00Z",
    }
    return RunOrder.model_validate(fields | changes)


@dataclass
class PlainStation:
    """An `InstructionHandler` that answers in its own process: adds `step` times its number to every weight."""

    number: int
    examples: int
    delay_s: float = 0.0
    seen: list[tuple[str, int, int]] = field(default_factory=list)
    over: list[str] = field(default_factory=list)
    recorded: dict[tuple[str, str, int], tuple[StationReply, bytes | None]] = field(default_factory=dict)
    alter: Callable[[Instruction, StationReply, bytes | None], tuple[StationReply, bytes | None]] | None = (
        None
    )

    @property
    def questions(self) -> list[tuple[str, int]]:
        """The kind and round of every question in the order of its first attempt; delivery is at least once."""
        return list(dict.fromkeys((kind, round_) for kind, round_, _ in self.seen))

    def handle(self, instruction: Instruction, arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        self.seen.append((instruction.kind.value, instruction.round, instruction.attempt))
        key = (instruction.order_digest, instruction.kind.value, instruction.round)
        if key not in self.recorded:
            self.recorded[key] = self._answer(instruction, arrays)
        reply, out = self.recorded[key]
        reply = reply.model_copy(update={"attempt": instruction.attempt})
        return self.alter(instruction, reply, out) if self.alter else (reply, out)

    def fault(self, instruction: Instruction) -> StationReply:
        return StationReply(
            order_digest=instruction.order_digest,
            kind=instruction.kind,
            round=instruction.round,
            attempt=instruction.attempt,
            status=Status.FAILED,
            code="STATION_FAULT",
        )

    def run_over(self, order_digest: str) -> None:
        self.over.append(order_digest)

    def _answer(self, instruction: Instruction, arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        common = {
            "order_digest": instruction.order_digest,
            "kind": instruction.kind,
            "round": instruction.round,
            "num_examples": self.examples,
        }
        if instruction.kind in {Kind.PREPARE, Kind.FINISH}:
            status = Status.ACCEPTED if instruction.kind is Kind.PREPARE else Status.FINISHED
            return StationReply(**common, status=status), None
        time.sleep(self.delay_s)
        if instruction.kind is Kind.EVALUATE:
            reply = StationReply(
                **common,
                status=Status.RELEASED,
                metrics={"auc": 0.5 + self.number / 10},
            )
            return reply, None
        inbound = load_arrays(arrays or b"")
        step = float(instruction.config["step"]) * self.number
        delta = save_arrays(
            {
                name: np.full_like(value, step if value.dtype.kind == "f" else self.number)
                for name, value in inbound.items()
            }
        )
        blob = Blob(digest=digest_of(delta), size=len(delta))
        reply = StationReply(
            **common,
            status=Status.RELEASED,
            metrics={"loss": float(self.number)},
            release=blob,
            compute_s=0.0,
        )
        return reply, delta


@dataclass
class Federation:
    """Everything of one test; stations start with `join`."""

    folder: Path
    superlink: SuperLink
    worker: RunWorker
    queue: FolderQueue
    nodes: dict[str, int]
    agents: dict[str, Agent] = field(default_factory=dict)

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs"

    def join(self, name: str, handler: PlainStation) -> Agent:
        connection = FleetConnection(
            self.superlink.address.url, self.superlink.files.ca, self.folder / f"{name}.key"
        )
        agent = Agent(connection, handler, self.folder / name, PACE)
        self.agents[name] = agent
        agent.start()
        return agent

    def accept(self, run_order: RunOrder, timing: Timing | None = None) -> RunFolder:
        accepted = AcceptedOrder(
            order_digest=digest_of(run_order.model_dump_json().encode()),
            envelope="{}",
            order=run_order,
            manifest=manifest(),
            release=ReleaseRules(
                tensors=TensorRules(integer_buffers="release"), metrics=("loss", "auc"), maximum_bytes=10**9
            ),
            nodes=self.nodes,
            timing=timing
            or Timing(prepare_s=300.0, prepare_grace_s=120.0, answer_s=300.0, straggler_s=120.0),
        )
        return self.queue.submit(accepted)

    def put_blob(self, data: bytes) -> None:
        path = self.blobs / "sha256" / digest_of(data).removeprefix("sha256:")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@contextmanager
def federation(folder: Path) -> Iterator[Federation]:
    superlink = SuperLink(folder / "superlink")
    superlink.start()
    control = superlink.control()
    nodes = {}
    for name in NAMES:
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        nodes[name] = control.register_node(openssh_public_key(key.public_key()))
    control.close()
    queue = FolderQueue(folder / "runs")
    files = WorkerFiles(folder / "runs", folder / "blobs", folder / "superlink")
    worker = RunWorker(queue, files, superlink.address, superlink.files.secret.read_bytes())
    worker.start()
    found = Federation(folder, superlink, worker, queue, nodes)
    try:
        yield found
    finally:
        for agent in found.agents.values():
            agent.stop(5.0)
        worker.stop()
        superlink.stop()


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 300.0) -> None:
    """Look again every 20 ms until it holds."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        pause.wait(0.02)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
