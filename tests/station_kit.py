"""A whole station in one process, for the tests of runs: everything real but the network, the engine and the container.

Real are the board's repository and signatures, the handover log, the catalogue, frozen cohorts, the guard, the database with its
chains. Simulated are the orchestrator's shelves (blobs, bundles), the launcher, and the container: a `SandboxSimulator` runs a
Python function where the train would be, with the surface and the ends of `station.sandbox.session.TrainSession`.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from board_kit import NOW, BoardKit
from catalogue_log import COLLECTION, Intake
from cohort_files import KEY, encoded, picture, radiograph
from egress_documents import moved, weights
from safetensors.numpy import load_file, save, save_file

from policies.documents import canonical_json, digest_of, format_moment
from policies.errors import NetworkError, NotFoundError, StorageError, UnavailableError
from policies.order import PAYLOAD_TYPE, RunOrder
from policies.policy import ConsentMode, PurposeCode, RequesterClass
from policies.signing import add_signature, sign_envelope
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status
from station.admission.gatekeeper import Gatekeeper
from station.audit import AuditLog
from station.compute import Counters
from station.egress.ledger import EgressLedger
from station.egress.releases import ReleaseStore
from station.layout import StationPaths
from station.runs import Decision, RunRepository
from station.runs.outbox import Outbox
from station.runs.preparation import Preparation
from station.runs.rounds import TrainRounds
from station.runs.service import RunService
from station.runs.warm import WarmRuns
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
from station.settings import (
    CeilingSettings,
    CollectionSettings,
    HospitalSettings,
    OrchestratorSettings,
    PollingSettings,
    ServiceSettings,
    StationSettings,
)
from station.storage import open_database

STATION = "amstel"
STATIONS = (STATION, "berkel", "dommel")
PATIENTS = range(40)
IMAGE = "sha256:" + "2" * 64
MANIFEST = f"""
schema_version: 1
name: cxr-classification
version: 1.0.0
title: A chest X-ray finding
kind: training
interface: flower
data: {{modalities: [DX], profile: thorax-1@1, clinical_fields: [pneumonia], label: pneumonia}}
hyperparameters:
  rate: {{type: float, minimum: 0.0, maximum: 10.0, default: 1.0}}
outputs:
  tensors: {{layout: same-as-input, buffers: ["norm.*"]}}
  metrics:
    - {{key: loss, stage: train, minimum: 0, maximum: 100, split: training}}
    - {{key: auc, stage: evaluate, minimum: 0, maximum: 1, split: validation}}
error_codes: [NO_LABELS]
resources: {{memory_mib: 256, cpus: 1}}
contact: {{name: A Person, organisation: A Hospital, email: a@b.nl}}
licence: Apache-2.0
source_commit: unversioned
images:
  - {{variant: cpu, config_digest: "{IMAGE}"}}
""".encode()

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
        while not done.wait(0.005):
            if self.killed.is_set():
                self._alive = False
                return TrainFailure(ExitClass.CRASH, detail="it ended with exit code 137")
            if time.monotonic() > deadline:
                self._alive = False
                return TrainFailure(ExitClass.TIMEOUT, detail="it did not answer in time")
        if not outcome:
            self._alive = False
            return TrainFailure(ExitClass.CRASH, detail="its code failed")
        if isinstance(outcome[0], TrainFailure):
            self._alive = self._alive and not outcome[0].session_ended
            return outcome[0]
        metrics, tables, tensors = outcome[0]
        if tensors is None:
            return TrainReply(metrics, tables, None, 0, 0.1)
        save_file(tensors, limits.arrays_to)
        return TrainReply(metrics, tables, limits.arrays_to, limits.arrays_to.stat().st_size, 0.1)

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

    def load_image(self, config_digest: str) -> None:
        if self.away:
            raise UnavailableError("the container engine does not answer")

    def remove_orphans(self) -> int:
        self.load_image(IMAGE)
        self.removed += 1
        return self.removed

    def engine_info(self) -> EngineInfo:
        self.load_image(IMAGE)
        return EngineInfo(
            kind="docker",
            name="simulated", version="1", architecture="x86_64", cgroup_version="2", cpus=2, memory_bytes=1 << 33,
            unfit=(),
        )  # fmt: skip


def settings(**changes: Any) -> StationSettings:
    """A hospital that asks no click, two trains at once, refreshed at every message."""
    sections: dict[str, Any] = {
        "name": STATION,
        "orchestrator": OrchestratorSettings(
            url="https://orchestrator.example", mirror_url="https://orchestrator.example/mirror"
        ),
        "services": ServiceSettings(separation="none"),
        "ceilings": CeilingSettings(memory_mib=1024, cpus=2.0, runs_at_once=2),
        "hospital": HospitalSettings(operator_approval="never", consent_max_age_days=30),
        "polling": PollingSettings(trust_refresh_s=0.5),
        "collections": (
            CollectionSettings(
                name=COLLECTION,
                consent_mode=ConsentMode.OPT_OUT,
                legal_ground="GDPR art. 9(2)(j)",
                opt_out_ground="wgbo-7-458-1-b",
                opt_out_review="METC 2026-001",
                marking="patient",
                requester_classes=tuple(RequesterClass),
                purposes=tuple(PurposeCode),
                countries=("NL",),
            ),
        ),
    }
    return StationSettings(**{**sections, **changes})


POLICY: Mapping[str, object] = {
    "image_config_digests": [IMAGE],
    "manifest_digest": digest_of(MANIFEST),
    "data.collections": [COLLECTION],
    "data.minimum_patients": 10,
    "runs.hyperparameters": {"rate": {"type": "float", "minimum": 0.0, "maximum": 5.0, "default": 1.0}},
    "release.metrics": ["loss", "auc"],
    "release.minimum_patients_per_metric": 2,
}


@dataclass
class StationKit:
    """The parts of one station; `again` is its next life on the same disk."""

    folder: Path
    clock: Clock
    board: BoardKit
    intake: Intake
    shelf: Shelf
    settings: StationSettings
    policy: bytes
    sandbox: SandboxSimulator = field(default_factory=SandboxSimulator)
    launcher: LauncherSimulator = field(default_factory=LauncherSimulator)
    orders: int = 0

    @classmethod
    def make(
        cls, folder: Path, policy: Mapping[str, object] | None = None, **settings_changes: Any
    ) -> "StationKit":
        """A board, one policy in force, forty patients who did not object."""
        board = BoardKit.found(folder)
        handover = folder / "home" / "handover"
        handover.mkdir(parents=True)
        intake = Intake(handover)
        intake.instances(*PATIENTS, data=encoded(radiograph(picture())))
        intake.clinical(*PATIENTS)
        intake.consent(p0="consent")
        document = board.policy(1, {**POLICY, **(policy or {})})
        board.repository.set_register(board.signed_register(1, *STATIONS))
        board.repository.set_purposes(board.signed_purposes())
        board.publish(board.signed(document))
        shelf = Shelf()
        shelf.put(MANIFEST)
        shelf.put(save(weights()))
        kit = cls(folder, Clock(), board, intake, shelf, settings(**settings_changes), document)
        kit.open()
        return kit

    def open(self) -> None:
        """Put the parts together, as `station.compute` does."""
        paths = self.paths = StationPaths(self.folder / "home")
        for place in (paths.compute, paths.cohorts, paths.control, paths.work, paths.train_logs):
            place.mkdir(parents=True, exist_ok=True)
        self.database = open_database(paths.database)
        self.audit = AuditLog(self.database)
        self.ledger = EgressLedger(self.database)
        self.runs = RunRepository(self.database, self.audit, self.clock)
        self.releases = ReleaseStore(self.database, self.audit, self.ledger, paths.releases)
        self.catalogue = self.intake.catalogue(paths.database)
        self.catalogue.sync()
        outbox = Outbox(self.ledger, self.audit)
        shelf: Any = self.shelf
        sandbox: Any = self.sandbox
        launcher: Any = self.launcher
        self.gatekeeper = Gatekeeper(
            self.settings, self.board.client("home/compute/trust"), self.catalogue,
            Counters(self.runs, self.releases), shelf, self.clock,
        )  # fmt: skip
        self.preparation = Preparation(
            self.settings, paths, self.gatekeeper, self.catalogue, shelf, shelf, launcher, sandbox, KEY, self.audit
        )  # fmt: skip
        self.rounds = TrainRounds(
            self.settings, self.gatekeeper, self.catalogue, self.runs, self.releases, self.ledger, self.audit, shelf,
            outbox,
        )  # fmt: skip
        self.warm = WarmRuns(self.gatekeeper, self.runs, self.preparation, self.audit)
        self.service = RunService(
            self.gatekeeper, self.runs, self.warm, self.rounds, outbox, self.audit,
            self.settings.ceilings.runs_at_once,
        )  # fmt: skip

    def again(self) -> None:
        """What SIGKILL leaves: the disk; then a start, as `station.compute` does it."""
        from station.compute import _clear, _end_containers

        for session in self.sandbox.running:
            session.killed.set()
        self.database.close()
        self.open()
        launcher: Any = self.launcher
        _end_containers(launcher)
        _clear(self.paths)
        self.warm.recover()
        self.releases.sweep()

    # -- the orchestrator's side -----------------------------------------------------------------------------

    def order(self, signer: str = "requester", also: str | None = None, **changes: object) -> bytes:
        """A signed run order of two rounds of train and evaluate."""
        self.orders += 1
        number = f"{self.orders:032x}"
        initial = save(weights())
        fields: dict[str, object] = {
            "schema_version": 1,
            "order_id": number,
            "policy_id": "cxr-classification",
            "policy_version": 1,
            "policy_digest": digest_of(self.policy),
            "manifest_digest": digest_of(MANIFEST),
            "image_config_digest": IMAGE,
            "hyperparameters": {"rate": 1.0},
            "initial_weights": {"digest": digest_of(initial), "size": len(initial)},
            "stations": list(STATIONS),
            "rounds": 2,
            "stages": ["train", "evaluate"],
            "strategy": {"name": "FedAvg", "parameters": {}},
            "minimum_stations": 3,
            "nonce": number,
            "issued": format_moment(NOW - timedelta(hours=1)),
            "expires": format_moment(NOW + timedelta(days=1)),
        }
        payload = canonical_json(RunOrder.model_validate_json(canonical_json(fields | changes)))
        envelope = sign_envelope(payload, PAYLOAD_TYPE, self.board.keys[signer])
        return add_signature(envelope, self.board.keys[also]) if also else envelope

    def prepare(self, envelope: bytes) -> StationReply:
        """Ask to prepare, again while the station says pending and is at work."""
        deadline = time.monotonic() + 30
        while True:
            reply, arrays = self.service.handle(prepare(envelope), None)
            assert arrays is None
            if reply.status is not Status.PENDING or reply.code is not None:
                return reply
            assert time.monotonic() < deadline, "still pending"
            threading.Event().wait(0.01)

    def ready(self, **changes: object) -> bytes:
        """An order that is prepared; returns its envelope."""
        envelope = self.order(**changes)  # type: ignore[arg-type]
        reply = self.prepare(envelope)
        assert reply.status is Status.ACCEPTED, reply
        return envelope

    def message(
        self, envelope: bytes, kind: Kind = Kind.TRAIN, round_: int = 1, **changes: Any
    ) -> tuple[StationReply, bytes | None]:
        """One message of a run, as an honest orchestrator sends it unless told otherwise."""
        arrays = changes.pop("arrays", None)
        return self.service.handle(instruction(envelope, kind, round_, **changes), arrays)

    def decide(self, envelope: bytes, word: str) -> None:
        """The operator's word, as the desk passes it on."""
        digest = order_digest(envelope)
        decision = {"approve": Decision.APPROVED, "hold": Decision.HELD, "stop": Decision.STOPPED}[word]

        def record() -> Any:
            return self.runs.decide(digest, decision, "an.operator")

        if word == "approve":
            record()
        else:
            self.warm.stop(digest, record)

    def weights(self, seed: int) -> bytes:
        """Another round's weights, in the layout of the initial ones."""
        tensors = weights()
        return save({name: np.asarray(values * seed, values.dtype) for name, values in tensors.items()})

    def policy_is_fresh(self) -> None:
        """The witness vouches again, at the kit's clock."""
        self.board.publish(now=self.clock())

    def state(self, envelope: bytes) -> str:
        run = self.runs.get(order_digest(envelope))
        assert run is not None
        return run.state.value

    def events(self) -> list[str]:
        return [item.record.event.value for item in self.audit.events(limit=100_000)]

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "not in time"
            threading.Event().wait(0.01)

    def close(self) -> None:
        self.warm.close()
        self.database.close()


class Busy:
    """A train whose messages wait until the test lets them go on."""

    def __init__(self, then: Train = honest) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self._then = then

    def __call__(self, request: TrainRequest, cohort: Path) -> Answered:
        self.entered.set()
        self.go_on.wait(20)
        return self._then(request, cohort)


@contextmanager
def in_the_middle(
    kit: StationKit, envelope: bytes, kind: Kind = Kind.TRAIN
) -> Iterator[tuple[Busy, list[tuple[StationReply, bytes | None]]]]:
    """A message under way in a thread of its own; its reply is in the list when the block has ended."""
    busy, replies = Busy(), []
    kit.sandbox.train = busy
    thread = threading.Thread(target=lambda: replies.append(kit.message(envelope, kind)), daemon=True)
    thread.start()
    assert busy.entered.wait(20)
    try:
        yield busy, replies
        thread.join(20)
        assert not thread.is_alive(), "the message is still under way"
    finally:
        busy.go_on.set()
        kit.sandbox.train = honest


def order_digest(envelope: bytes) -> str:
    """The digest by which instructions name an order."""
    from policies.signing import unsafe_payload

    return digest_of(unsafe_payload(envelope, PAYLOAD_TYPE))


def prepare(envelope: bytes) -> Instruction:
    """The instruction that brings an order."""
    return Instruction(
        kind=Kind.PREPARE, order_digest=order_digest(envelope), order=envelope.decode(), deadline_s=600
    )


def instruction(envelope: bytes, kind: Kind = Kind.TRAIN, round_: int = 1, **changes: Any) -> Instruction:
    """An instruction of a run."""
    if kind is Kind.FINISH:
        return Instruction(kind=kind, order_digest=order_digest(envelope), deadline_s=60, **changes)
    initial = save(weights())
    fields: dict[str, Any] = {
        "config": {"rate": 1.0},
        "weights": Blob(digest=digest_of(initial), size=len(initial)),
        "deadline_s": 60,
    }
    return Instruction(kind=kind, order_digest=order_digest(envelope), round=round_, **{**fields, **changes})


def broken_disk(*_anything: object) -> Any:
    """What a write to a full disk raises here."""
    raise StorageError("the disk is full")


def as_yaml(document: bytes) -> dict[str, Any]:
    """A policy file as a dict."""
    loaded: dict[str, Any] = yaml.safe_load(document)
    return loaded
