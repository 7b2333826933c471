"""A whole station in one process, for the tests of runs: everything real but the network, the engine and the container.

Real are the board's repository and signatures, the handover log, the catalogue, frozen cohorts (read by one decoder that stays), the
guard, the database with its chains. What is simulated is in `station_simulators`, what tests say to the station in `station_documents`.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from board_kit import NOW, BoardKit
from catalogue_log import Intake
from cohort_files import KEY, encoded, picture, radiograph, warm_decoder
from egress_documents import weights
from safetensors.numpy import save
from station_documents import (
    IMAGE,
    MANIFEST,
    PATIENTS,
    POLICY,
    STATION,
    STATIONS,
    as_yaml,
    instruction,
    order_digest,
    prepare,
    settings,
)
from station_simulators import (
    Answered,
    Busy,
    Clock,
    LauncherSimulator,
    SandboxSimulator,
    SessionSimulator,
    Shelf,
    Train,
    TrainEndsError,
    broken_disk,
    honest,
)

from policies.documents import canonical_json, digest_of, format_moment
from policies.order import PAYLOAD_TYPE, RunOrder
from policies.signing import add_signature, sign_envelope
from policies.wire.instructions import Kind, StationReply, Status
from station.admission.gatekeeper import Gatekeeper
from station.admission.gpus import LeasableGpus
from station.audit import AuditLog
from station.egress.differencing.differences import Differences
from station.egress.records.ledger import EgressLedger
from station.egress.records.releases import ReleaseStore
from station.egress.review.queue import ReviewQueue
from station.layout import StationPaths
from station.predictions.book import PredictionBook
from station.predictions.folder import PredictionFolder
from station.runs import Decision, RunRepository
from station.runs.canary import Canary
from station.runs.charging import Charging, privacy_ledger
from station.runs.clock import RunClock
from station.runs.containers import RunContainers
from station.runs.counters import Counters
from station.runs.differing import Differing
from station.runs.failing import Failing
from station.runs.moments import Moments
from station.runs.outbox import Outbox
from station.runs.predicting import Predicting
from station.runs.preparation import Preparation
from station.runs.releasing import Releasing
from station.runs.reviewing import Reviewing
from station.runs.rounds import TrainRounds
from station.runs.service import RunService
from station.runs.warm import WarmRuns
from station.settings import StationSettings
from station.storage import open_database

__all__ = [
    "IMAGE",
    "MANIFEST",
    "PATIENTS",
    "POLICY",
    "STATION",
    "STATIONS",
    "Answered",
    "Busy",
    "Clock",
    "LauncherSimulator",
    "SandboxSimulator",
    "SessionSimulator",
    "Shelf",
    "StationKit",
    "Train",
    "TrainEndsError",
    "as_yaml",
    "broken_disk",
    "honest",
    "in_the_middle",
    "instruction",
    "order_digest",
    "prepare",
    "settings",
    "weights",
]


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
    boot: str = "this-boot"
    moments: Moments = field(default_factory=Moments)

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
        """Put the parts together, as `station.assembly` does."""
        paths = self.paths = StationPaths(self.folder / "home")
        for place in (paths.compute, paths.cohorts, paths.control, paths.work, paths.train_logs):
            place.mkdir(parents=True, exist_ok=True)
        self.database = open_database(paths.database)
        self.audit = AuditLog(self.database)
        self.ledger = EgressLedger(self.database)
        self.runs = RunRepository(self.database, self.audit, self.clock)
        self.releases = ReleaseStore(self.database, self.audit, self.ledger, paths.releases)
        self.privacy = privacy_ledger(self.settings, self.database, self.audit, self.clock)
        self.catalogue = self.intake.catalogue(paths.database)
        self.catalogue.sync()
        outbox = Outbox(self.ledger, self.audit)
        shelf: Any = self.shelf
        sandbox: Any = self.sandbox
        launcher: Any = self.launcher
        self.gatekeeper = Gatekeeper(
            self.settings, self.board.client("home/compute/trust"), self.catalogue,
            Counters(self.runs, self.releases), shelf, self.clock,
            gpus=LeasableGpus(self.settings, launcher, clock=lambda: self.clock().timestamp()), privacy=self.privacy,
        )  # fmt: skip
        # One clock for all of it, which the test moves.
        run_clock = RunClock(self.database, self.clock, lambda: self.clock().timestamp(), lambda: self.boot)
        self.containers = RunContainers(
            self.settings, paths, sandbox, self.audit, run_clock, self.clock, self.moments
        )
        self.preparation = Preparation(
            self.settings, paths, self.gatekeeper, self.catalogue, shelf, shelf, launcher, self.containers, KEY, self.audit,
            decoders=warm_decoder(),
        )  # fmt: skip
        differing = Differing(Differences(self.database, self.clock))
        self.reviewing = Reviewing(
            self.settings, self.gatekeeper, self.catalogue, self.runs, self.releases, differing,
            ReviewQueue(
                self.database, self.audit, paths.reviews, self.clock, lambda: self.clock().timestamp()
            ),
            paths.work,
        )  # fmt: skip
        self.releasing = Releasing(
            self.gatekeeper,
            self.catalogue,
            self.runs,
            self.releases,
            differing,
            self.reviewing,
            Charging(self.privacy),
        )
        failing = Failing(self.runs, self.audit, outbox, self.settings.hospital.failed_messages)
        self.rounds = TrainRounds(
            self.settings, self.gatekeeper, self.runs, self.releases, self.audit, shelf, outbox, failing, run_clock,
            self.releasing, Canary(self.containers, KEY), moments=self.moments,
        )  # fmt: skip
        chosen = self.settings.predictions.folder
        self.book = PredictionBook(self.database, self.audit)
        self.predictions = None if chosen is None else PredictionFolder(Path(chosen))
        self.predicting = Predicting(
            self.containers, self.gatekeeper, self.catalogue, KEY, self.book, self.predictions
        )
        self.warm = WarmRuns(self.gatekeeper, self.runs, self.preparation, self.audit, self.predicting)
        self.service = RunService(
            self.gatekeeper, self.runs, self.warm, self.rounds, failing, outbox, self.audit,
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
        self.reviewing.queue.files.sweep()

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
        deadline = time.monotonic() + 300
        while True:
            reply, arrays = self.service.handle(prepare(envelope), None)
            assert arrays is None
            if reply.status is not Status.PENDING or reply.code is not None:
                return reply
            assert time.monotonic() < deadline, "still pending"
            # Asked again when it is done and not before: every answer is an entry of the ledger.
            if (worker := self.service._preparing._workers.get(order_digest(envelope))) is not None:
                worker.join(300)
            else:
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
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, "not in time"
            threading.Event().wait(0.01)

    def close(self) -> None:
        self.warm.close()
        self.database.close()


@contextmanager
def in_the_middle(
    kit: StationKit, envelope: bytes, kind: Kind = Kind.TRAIN
) -> Iterator[tuple[Busy, list[tuple[StationReply, bytes | None]]]]:
    """A message under way in a thread of its own; its reply is in the list when the block has ended."""
    busy, replies = Busy(), []
    kit.sandbox.train = busy
    thread = threading.Thread(target=lambda: replies.append(kit.message(envelope, kind)), daemon=True)
    thread.start()
    assert busy.entered.wait(120)
    try:
        yield busy, replies
        thread.join(120)
        assert not thread.is_alive(), "the message is still under way"
    finally:
        busy.go_on.set()
        kit.sandbox.train = honest
