"""The conversation of a dry run: one warm container, asked round by round, every answer through the guard."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from policies.documents import digest_of
from policies.manifest import Interface, TrainManifest
from policies.order import HyperparameterValue, Stage
from policies.refusals import Reason, RefusalCode
from policies.wire.deltas import apply_delta
from station.cohorts import FrozenCohort, PatientFolders
from station.cohorts.roster import Roster
from station.egress.analyses.tally import stated_cells
from station.egress.canary.decision import MembershipScore, Unscored, membership_reason
from station.egress.contract import CohortCounts, ReleaseContract
from station.egress.guard import Guard, GuardRequest
from station.egress.privacy.blurring import everybody_pays
from station.egress.release import Release, Suppressed, Withheld
from station.sandbox.failure_codes import code_of
from station.sandbox.mapping import MapReply, MapSession, MapTerms
from station.sandbox.session import TrainSandbox, TrainSession
from station.sandbox.spec import (
    MIB,
    ContainerSpec,
    ExitClass,
    ReplyLimits,
    TrainFailure,
    TrainRequest,
    TrainStartError,
    head_bytes,
)
from station.sandbox.without_program import StationSession
from train_images.tool.dry_canary import DryUpdate, dry_score
from train_images.tool.dry_predictions import DryPredictions, DryQuestion, dry_predictions
from train_images.tool.dry_privacy import UpdateNoise, update_noise
from train_images.tool.folders import PackedTrain
from train_images.tool.initial_weights import Weights
from train_images.tool.measuring import TrainUse, together
from train_images.tool.sandbox_home import SandboxHome, containers_at_once
from train_images.tool.stages import stages_of

_ORDER: Final = digest_of(b"a dry run has no order")
_LOG_BYTES: Final = 64 * 1024
_WALL_CLOCK_S: Final = 24 * 3600

Outcome = Literal["released", "withheld", "failed"]
Progress = Callable[[str], None]
Session = TrainSession | MapSession | StationSession


@dataclass(frozen=True, slots=True)
class DryMessage:
    """What became of one message.

    Attributes:
        round: from 1.
        stage: what was asked.
        outcome: released, withheld by the guard, or not answered.
        reasons: why nothing was released; the first code is all that a hospital would tell.
        metrics: what would have left.
        tables: likewise.
        suppressed: outputs that a rule left out of a release.
        num_examples: the station's own count, rounded.
        arrays_bytes: size of the released deltas.
        seconds: from asking to the whole answer.
        capacity_bits: the most that a release could carry.
        membership: how well its update tells whom it was trained on; None where the train does not say.
        noise: on the update, beside the update; None where the policy has none.
    """

    round: int
    stage: Stage
    outcome: Outcome
    reasons: tuple[Reason, ...] = ()
    metrics: Mapping[str, float | int] = field(default_factory=dict)
    tables: Mapping[str, tuple[tuple[int | float, ...], ...]] = field(default_factory=dict)
    suppressed: tuple[Suppressed, ...] = ()
    num_examples: int = 0
    arrays_bytes: int = 0
    seconds: float = 0.0
    capacity_bits: int | None = None
    membership: MembershipScore | Unscored | None = None
    noise: UpdateNoise | None = None

    @property
    def code(self) -> str:
        """The first reason's code, or nothing."""
        return self.reasons[0].code.value if self.reasons else ""


@dataclass(frozen=True, slots=True)
class DryTerms:
    """Everything that was decided before the train starts."""

    train: PackedTrain
    cohort: FrozenCohort
    roster: Roster
    contract: ReleaseContract
    config: Mapping[str, HyperparameterValue]
    rounds: int
    weights: Weights | None
    failed_share: float = 0.0
    membership_limit: float | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said.

    Attributes:
        messages: in order; the last one may have released nothing.
        start_s: from asking for the container until it said hello; None where it did not, or where each patient has one.
        use: of the train's containers; None where none ran.
        log: the end of what the train printed.
        predictions: what it marked and measured; None where it declares none, or a message released nothing.
    """

    messages: tuple[DryMessage, ...]
    start_s: float | None
    use: TrainUse | None
    log: str
    predictions: DryPredictions | None = None


def converse(home: SandboxHome, terms: DryTerms, progress: Progress) -> Conversation:
    """Start the train's container and ask until a message releases nothing or the rounds are over.

    Raises:
        RefusedError: the launcher says no to the image or to what the train asks for.
        UnavailableError: the engine does not answer.
        StorageError: the disk.
    """
    first = stages_of(terms.train.manifest)[0]
    if terms.train.manifest.program is not None:
        progress("starting the train in the sandbox")
    run_id = f"dry-{secrets.token_hex(6)}"
    began = time.monotonic()
    try:
        session = _start(home, terms, run_id)
    except TrainStartError as error:
        failed = _failed(1, first, error.failure, terms.train.manifest)
        return Conversation((failed,), None, None, error.log)
    start_s = round(time.monotonic() - began, 3) if isinstance(session, TrainSession) else None
    try:
        messages = tuple(_rounds(home, terms, session, progress))
        predictions = _predictions(home, terms, session, messages, progress)
        home.launcher.look(run_id)
        return Conversation(messages, start_s, _use(home, run_id), session.logs(_LOG_BYTES), predictions)
    finally:
        session.finish()


def _predictions(
    home: SandboxHome,
    terms: DryTerms,
    session: Session,
    messages: tuple[DryMessage, ...],
    progress: Progress,
) -> DryPredictions | None:
    """Ask for predictions as a station does, when all was released; with the weights that were evaluated last."""
    manifest = terms.train.manifest
    released = all(message.outcome == "released" for message in messages)
    if not manifest.outputs.predictions or not released or not isinstance(session, TrainSession):
        return None
    progress("asking for predictions")
    given = None if terms.weights is None else terms.weights.path
    trained = _weights_after(home, terms.rounds)
    weights = trained if trained.is_file() else given
    asked = DryQuestion(terms.rounds, terms.config, weights, home.work / "predicted.safetensors")
    return dry_predictions(session, manifest, terms.cohort, asked)


def _weights_after(home: SandboxHome, number: int) -> Path:
    return home.work / f"weights-{number}.safetensors"


def _use(home: SandboxHome, run_id: str) -> TrainUse | None:
    """Return what the train's own containers used: one, or one per patient; those that only score are the station's."""
    beside = f"{run_id}-score-"
    return together(
        use
        for name, use in home.launcher.uses.items()
        if name.startswith(run_id) and not name.startswith(beside)
    )


def _start(home: SandboxHome, terms: DryTerms, run_id: str) -> Session:
    sandbox, manifest = TrainSandbox(home.launcher), terms.train.manifest
    if manifest.program is None:
        return StationSession(run_id, manifest, terms.roster)
    spec = _container(home, terms, run_id, manifest.program)
    if manifest.interface is not Interface.MAP:
        return sandbox.start(spec)
    at_once = containers_at_once(manifest)
    return MapSession(
        sandbox,
        PatientFolders(terms.cohort),
        MapTerms(spec, manifest, terms.roster, at_once, terms.failed_share),
    )


def _container(
    home: SandboxHome, terms: DryTerms, run_id: str, interface: Literal["flower", "command", "map"]
) -> ContainerSpec:
    resources = terms.train.manifest.resources
    return ContainerSpec(
        run_id=run_id,
        image_config_digest=terms.train.index.config.digest,
        cohort_dir=str(terms.cohort.path),
        control_dir=str(home.control / run_id),
        interface=interface,
        memory_bytes=resources.memory_mib * MIB,
        cpus=min(resources.cpus, float(home.launcher.engine_info().cpus)),
        pids=resources.pids,
        scratch_bytes=resources.scratch_mib * MIB,
        wall_clock_s=_WALL_CLOCK_S,
    )


def _rounds(home: SandboxHome, terms: DryTerms, session: Session, progress: Progress) -> Iterator[DryMessage]:
    counts = CohortCounts.from_cohort(terms.cohort.patients_by_split, terms.cohort.images_by_split)
    # Patients who do not exist have no privacy to lose: the noise is drawn, nobody is charged.
    guard = Guard(terms.contract, counts, terms.roster, everybody_pays)
    inbound = None if terms.weights is None else terms.weights.path
    for number in range(1, terms.rounds + 1):
        for stage in stages_of(terms.train.manifest):
            progress(f"round {number}: {stage}")
            request = GuardRequest(_ORDER, number, stage, inbound, home.work / f"release-{number}-{stage}")
            message, release = _ask(home, terms, session, guard, request)
            ahead = inbound
            if release is not None and release.arrays is not None and inbound is not None:
                ahead = _weights_after(home, number)
                apply_delta(inbound, release.arrays.path, ahead)
                message = _scored(home, terms, session.run_id, message, (inbound, ahead))
            yield message
            if message.outcome != "released":
                return
            inbound = ahead


def _scored(
    home: SandboxHome, terms: DryTerms, run_id: str, message: DryMessage, weights: tuple[Path, Path]
) -> DryMessage:
    """Return a message with what the canary says of its update; withheld where a station would."""
    manifest = terms.train.manifest
    if not manifest.outputs.membership_scores or manifest.program is None:
        return message
    timeout_s = float(manifest.resources.message_timeout_s)
    update = DryUpdate(message.round, dict(terms.config), *weights, timeout_s)
    score = dry_score(home, terms.cohort, _container(home, terms, run_id, manifest.program), update)
    limit = terms.membership_limit
    reason = None if limit is None else membership_reason(score, limit)
    scored = replace(message, membership=score)
    if reason is None:
        return scored
    return DryMessage(
        message.round,
        message.stage,
        "withheld",
        (reason,),
        seconds=message.seconds,
        membership=score,
    )


def _ask(
    home: SandboxHome,
    terms: DryTerms,
    session: Session,
    guard: Guard,
    request: GuardRequest,
) -> tuple[DryMessage, Release | None]:
    manifest = terms.train.manifest
    reply = session.exchange(
        TrainRequest(request.stage, request.round, dict(terms.config), request.inbound),
        ReplyLimits(
            home.work / "reply.safetensors",
            terms.contract.reply_arrays_limit(request.stage),
            head_bytes(stated_cells(manifest, terms.roster)),
        ),
        timeout_s=float(manifest.resources.message_timeout_s),
    )
    if isinstance(reply, TrainFailure):
        return _failed(request.round, request.stage, reply, manifest), None
    noise = None
    if isinstance(reply, MapReply):
        result = guard.count(request, reply.tally)
    else:
        head = {"type": "reply", "metrics": dict(reply.metrics), "rows": dict(reply.rows), "error": None}
        noise = update_noise(terms.contract, reply.arrays, request.inbound)
        result = guard.check(request, head, reply.arrays)
    seconds = round(reply.seconds, 3)
    if isinstance(result, Withheld):
        return DryMessage(request.round, request.stage, "withheld", result.reasons, seconds=seconds), None
    released = DryMessage(
        request.round,
        request.stage,
        "released",
        metrics=dict(result.metrics),
        tables=dict(result.tables),
        suppressed=result.suppressed,
        num_examples=result.num_examples,
        arrays_bytes=0 if result.arrays is None else result.arrays.size,
        seconds=seconds,
        capacity_bits=result.capacity_bits,
        noise=noise,
    )
    return released, result


def _failed(number: int, stage: Stage, failure: TrainFailure, manifest: TrainManifest) -> DryMessage:
    code = code_of(failure)
    detail = failure.detail
    if failure.exit_class is ExitClass.DECLARED_ERROR:
        if failure.error_code in manifest.error_codes:
            code = RefusalCode.TRAIN_DECLARED_ERROR
            detail = f"the train answered {failure.error_code}"
        else:
            detail = f"the train answered {failure.error_code}, which train.yaml does not declare"
    return DryMessage(number, stage, "failed", (Reason(code, detail),))
