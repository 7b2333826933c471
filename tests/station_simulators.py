"""What is simulated around a station in process: the orchestrator's shelves, the launcher, the container and its clock.

A `SandboxSimulator` runs a Python function where the train would be, with the surface and the ends of
`station.sandbox.session.TrainSession`.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from board_kit import NOW
from egress_documents import moved
from safetensors.numpy import load_file, save_file
from station_documents import IMAGE

from policies.documents import digest_of
from policies.errors import NetworkError, NotFoundError, StorageError, UnavailableError
from policies.wire.instructions import Blob
from station.sandbox.gpu.model import GpuReport
from station.sandbox.spec import (
    ContainerSpec,
    EngineInfo,
    ExitClass,
    ReplyLimits,
    TrainFailure,
    TrainReply,
    TrainRequest,
    TrainStartError,
)

Answered = tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]

Train = Callable[[TrainRequest, Path], Answered]


class Clock:
    """The moment it is, as the test says."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **delta: float) -> None:
        self.now += timedelta(**delta)


def honest(request: TrainRequest, cohort: Path) -> Answered:
    """One step of training, or one evaluation, as the manifest declares."""
    if request.kind == "evaluate":
        return {"auc": 0.75}, {}, None
    assert request.arrays is not None
    return {"loss": 0.5}, {}, moved(load_file(request.arrays))


class TrainEndsError(Exception):
    """A train function raises it to end as a `TrainFailure` says."""

    def __init__(self, failure: TrainFailure) -> None:
        self.failure = failure


class SessionSimulator:
    """The surface of `TrainSession`: `exchange` waits for the function, for `stop` and for its deadline."""

    def __init__(self, sandbox: "SandboxSimulator", spec: ContainerSpec) -> None:
        self.spec = spec
        self.killed = threading.Event()
        self.asked: list[TrainRequest] = []
        self._sandbox = sandbox
        self._alive = True

    @property
    def run_id(self) -> str:
        return self.spec.run_id

    @property
    def has_gpu(self) -> bool:
        return self.spec.gpu is not None

    @property
    def alive(self) -> bool:
        return self._alive

    def exchange(
        self, request: TrainRequest, limits: ReplyLimits, timeout_s: float
    ) -> TrainReply | TrainFailure:
        if not self._alive:
            return TrainFailure(ExitClass.CRASH, detail="the container has ended")
        self.asked.append(request)
        self._sandbox.asked.append(request)
        outcome: list[Answered | TrainFailure] = []
        done = threading.Event()

        def work() -> None:
            try:
                outcome.append(self._sandbox.train(request, Path(self.spec.cohort_dir)))
            except TrainEndsError as end:
                outcome.append(end.failure)
            except OSError:
                # Its files went with it.
                if not self.killed.is_set():
                    raise
            finally:
                done.set()

        threading.Thread(target=work, daemon=True).start()
        deadline = time.monotonic() + timeout_s
        while not done.wait(0.005) and not self.killed.is_set():
            if time.monotonic() > deadline:
                self._alive = False
                return TrainFailure(ExitClass.TIMEOUT, detail="it did not answer in time")
        if self.killed.is_set():
            # What it was about to say went with it.
            self._alive = False
            return TrainFailure(ExitClass.CRASH, detail="it ended with exit code 137")
        if not outcome:
            self._alive = False
            return TrainFailure(ExitClass.CRASH, detail="its code failed")
        if isinstance(outcome[0], TrainFailure):
            self._alive = self._alive and not outcome[0].session_ended
            return outcome[0]
        if request.kind == "score":
            return TrainReply({}, {}, None, 0, 0.1, tuple(outcome[0][0].get("scores", ())))
        metrics, rows, tensors = outcome[0]
        if tensors is None:
            return TrainReply(metrics, rows, None, 0, 0.1)
        save_file(tensors, limits.arrays_to)
        return TrainReply(metrics, rows, limits.arrays_to, limits.arrays_to.stat().st_size, 0.1)

    def logs(self, max_bytes: int = 65536) -> str:
        return "what the train printed"

    def stop(self) -> None:
        self._alive = False
        self.killed.set()


@dataclass
class SandboxSimulator:
    """Starts sessions; remembers all it started and all that was asked."""

    train: Train = honest
    started: list[SessionSimulator] = field(default_factory=list)
    asked: list[TrainRequest] = field(default_factory=list)
    start_failures: int = 0

    def start(self, spec: ContainerSpec) -> SessionSimulator:
        assert not [one for one in self.running if one.run_id == spec.run_id], "one container per run"
        if self.start_failures > 0:
            self.start_failures -= 1
            raise TrainStartError(TrainFailure(ExitClass.CRASH, detail="it ended with exit code 1"))
        self.started.append(SessionSimulator(self, spec))
        return self.started[-1]

    def stop(self, run_id: str) -> None:
        for one in self.running:
            if one.run_id == run_id:
                one.stop()

    @property
    def running(self) -> list[SessionSimulator]:
        return [one for one in self.started if not one.killed.is_set()]


class Shelf:
    """The orchestrator's blobs and bundles, without a network."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.pushed: list[str] = []
        self.away = False

    def put(self, data: bytes) -> Blob:
        self.blobs[digest_of(data)] = data
        return Blob(digest=digest_of(data), size=len(data))

    def fetch(self, what: Blob | str, path: Path | None = None) -> int:
        """`Bundles.fetch` of an image, or `BlobClient.fetch` of a blob."""
        self._reach()
        if isinstance(what, str):
            return 0
        if what.digest not in self.blobs:
            raise NotFoundError("the orchestrator does not hold this blob for this station")
        assert path is not None
        path.write_bytes(self.blobs[what.digest])
        return 0

    def push(self, blob: Blob, path: Path, order_digest: str) -> None:
        self._reach()
        self.blobs[blob.digest] = path.read_bytes()
        self.pushed.append(blob.digest)

    def manifest(self, image_config_digest: str, manifest_digest: str) -> bytes:
        self._reach()
        return self.blobs[manifest_digest]

    def _reach(self) -> None:
        if self.away:
            raise NetworkError("the orchestrator does not answer")


class LauncherSimulator:
    """An engine that has every image."""

    def __init__(self) -> None:
        self.away = False
        self.removed = 0
        self.report = GpuReport()

    def load_image(self, config_digest: str) -> None:
        if self.away:
            raise UnavailableError("the container engine does not answer")

    def remove_orphans(self) -> int:
        self.load_image(IMAGE)
        self.removed += 1
        return self.removed

    def gpus(self) -> GpuReport:
        self.load_image(IMAGE)
        return self.report

    def engine_info(self) -> EngineInfo:
        self.load_image(IMAGE)
        return EngineInfo(
            kind="docker",
            name="simulated", version="1", architecture="x86_64", cgroup_version="2", cpus=2, memory_bytes=1 << 33,
            unfit=(),
        )  # fmt: skip


class Busy:
    """A train whose messages wait until the test lets them go on."""

    def __init__(self, then: Train = honest) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self._then = then

    def __call__(self, request: TrainRequest, cohort: Path) -> Answered:
        self.entered.set()
        self.go_on.wait(120)
        return self._then(request, cohort)


def broken_disk(*_anything: object) -> Any:
    """What a write to a full disk raises here."""
    raise StorageError("the disk is full")
