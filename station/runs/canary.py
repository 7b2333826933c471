"""The membership-inference canary of a run: scores each update before it leaves, in a container of its own.

    released file + inbound weights -> two sets of weights -> blind cohort -> a fresh container of the train's image, asked twice
        -> audit -> leaves, or stays

Invariants: with a limit in the policy nothing trained leaves unscored; the score is in the audit and nowhere else; what was to be
released is read and never changed; when this returns, the container, the blind cohort and the weights that were scored are gone.
Whatever ends the run (a withdrawal, the operator, the end of the station) ends the container too.
"""

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from sqlalchemy.orm import Session

from policies.errors import StateError, StorageError
from policies.refusals import Reason, RefusalCode
from policies.wire.deltas import apply_delta
from policies.wire.instructions import Instruction
from station.audit.events import AuditEvent, AuditRecord
from station.cohorts import CohortKey
from station.cohorts.blind import BlindCohort, blind_cohort, blind_patients
from station.egress.canary.decision import (
    MINIMUM_PATIENTS,
    MembershipScore,
    Unscored,
    membership_reason,
    score_update,
)
from station.egress.release import Release
from station.runs.audited import entry_of
from station.runs.containers import RunContainers
from station.runs.mapping import at_once
from station.runs.places import run_id
from station.runs.prepared import Prepared
from station.runs.repository import Run
from station.runs.train_logs import SCORING
from station.runs.usage import note_use
from station.sandbox.scoring import ScoreRequest, Scores, ScoringContainer
from station.sandbox.spec import ContainerSpec, ExitClass, TrainFailure

_START_S: Final = 180.0
_ATTEMPTS: Final = 2
"""A container that fails is started once more before the update is withheld for it; one that takes too long is not."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A message of a run that trained.

    Attributes:
        inbound: the weights that it started from.
        release: what would leave.
        since: when the message was taken up, in the seconds of the containers' moments.
    """

    instruction: Instruction
    run: Run
    prepared: Prepared
    inbound: Path | None
    release: Release
    since: float


@dataclass(frozen=True, slots=True)
class Canary:
    """Scores updates."""

    containers: RunContainers
    cohort_key: CohortKey

    def look(self, trained: Trained) -> Reason | None:
        """Return why an update must stay, or None.

        1. Only what was trained is scored, and only where the policy has a limit.
        2. There are patients enough on both sides.
        3. The weights that the update leads to are worked out, and a blind cohort is laid.
        4. A fresh container scores both sets of weights.
        5. What came of it is audited, then decided.

        Raises:
            RefusedError: the launcher says no.
            UnavailableError: the launcher or the engine does not answer.
            StateError, StorageError: the cohort cannot be read, or the disk.
        """
        # 1
        prepared, release = trained.prepared, trained.release
        limit = prepared.admitted.verified.in_force.policy.release.membership_limit
        if limit is None or release.stage != "train":
            return None
        if release.arrays is None or trained.inbound is None:
            return Reason(RefusalCode.RELEASE_UNSCORED, "there is no update to score")
        # 2
        if blind_patients(prepared.cohort) < MINIMUM_PATIENTS:
            return self._decided(trained, Unscored.TOO_FEW, limit, "")
        # 3
        after = prepared.work / "scored.safetensors"
        seed = self.cohort_key.sample_seed(release.order_digest, release.round)
        try:
            apply_delta(trained.inbound, release.arrays.path, after)
            with blind_cohort(prepared.cohort, seed) as blind:
                # 4
                score, why = self._score(trained, blind, trained.inbound, after)
        finally:
            _remove(after)
        # 5
        return self._decided(trained, score, limit, why)

    def _score(
        self, trained: Trained, blind: BlindCohort, before: Path, after: Path
    ) -> tuple[MembershipScore | Unscored, str]:
        failure = None
        for _ in range(_ATTEMPTS):
            with self._room(trained) as beside:
                asked = self._request(trained, before, after)
                answer = self._ask(trained, blind, asked, beside=beside)
            if not isinstance(answer, TrainFailure):
                return score_update(blind.cases, answer.before, answer.after), ""
            failure = answer
            if answer.exit_class is ExitClass.TIMEOUT or trained.prepared.ended_by is not None:
                break
        return Unscored.FAILED, "" if failure is None else f"{failure.exit_class} {failure.detail}".rstrip()

    def _request(self, trained: Trained, before: Path, after: Path) -> ScoreRequest:
        admitted = trained.prepared.admitted
        limit_s = min(
            admitted.manifest.resources.message_timeout_s,
            self.containers.settings.ceilings.message_timeout_s,
            trained.instruction.deadline_s,
        )
        return ScoreRequest(
            trained.release.round,
            dict(admitted.order.hyperparameters),
            before,
            after,
            trained.prepared.work / "scores.safetensors",
            float(limit_s),
        )

    @contextlib.contextmanager
    def _room(self, trained: Trained) -> Iterator[bool]:
        """Make room for a container and count its time; yields whether the one that trained stays beside it.

        It does where both fit into what policy and hospital grant one train, and it holds no GPU; its time counts for both then.
        Else it ends first, and the next message starts it again.
        """
        prepared, containers = trained.prepared, self.containers
        granted = prepared.admitted.verified.in_force.policy.resources
        session = prepared.session
        alive = session is not None and session.alive
        together = at_once(prepared.admitted.manifest.resources, granted, containers.settings.ceilings)
        if alive and together >= 2 and not prepared.has_gpu:
            yield True
            return
        containers.end(trained.run, prepared)
        with containers.clock.counting(trained.run.order_digest):
            yield False

    def _ask(
        self, trained: Trained, blind: BlindCohort, asked: ScoreRequest, *, beside: bool
    ) -> Scores | TrainFailure:
        prepared = trained.prepared
        spec = self._spec(trained, blind, asked.timeout_s, beside=beside)
        container = ScoringContainer(self.containers.sandbox, spec)
        prepared.scoring = container
        try:
            if prepared.ended_by is not None:
                return TrainFailure(ExitClass.CRASH, detail="the station ended it")
            self._note_start(trained)
            # When it is done is the choice of who wrote it, and its end goes on record before the answer leaves.
            with self.containers.moments.holding(
                trained.since,
                prepared.admitted.verified.in_force.policy.release.timing_quantum_s,
                lambda: prepared.ended_by is not None,
            ):
                answer = container.ask(asked)
            self._note(trained, AuditEvent.CONTAINER_ENDED, {})
        finally:
            prepared.scoring = None
        if container.log:
            self.containers.logs.keep(run_id(trained.run) + SCORING, container.log)
        return answer

    def _spec(self, trained: Trained, blind: BlindCohort, timeout_s: float, *, beside: bool) -> ContainerSpec:
        run, prepared, containers = trained.run, trained.prepared, self.containers
        interface: Literal["flower", "command", "map"] | None = prepared.admitted.manifest.program
        if interface is None:
            raise StateError("a train without a program has no container")
        hours = prepared.admitted.verified.in_force.policy.resources.run_hours
        left_s = min(containers.clock.left_s(run.order_digest, hours), 2 * timeout_s + _START_S)
        spec = containers.spec(run, prepared, interface, left_s)
        run_id = f"{spec.run_id}-score-{secrets.token_hex(4)}"
        return spec.model_copy(
            update={
                "run_id": run_id,
                "cohort_dir": str(blind.path),
                "control_dir": str(Path(spec.control_dir).with_name(run_id)),
                # It scores on what the other trained on.
                "gpu": spec.gpu if prepared.has_gpu else None,
                "beside": spec.run_id if beside else None,
            }
        )

    def _decided(
        self, trained: Trained, score: MembershipScore | Unscored, limit: float, why: str
    ) -> Reason | None:
        """Audit what was found, for the hospital's operator alone, and decide."""
        if isinstance(score, MembershipScore):
            numbers = {
                "patients_each_side": score.patients,
                "loss_auc_permille": round(1000 * score.loss_area),
                "gain_auc_permille": round(1000 * score.gain_area),
                "loss_found_permille": round(1000 * score.loss_found),
                "gain_found_permille": round(1000 * score.gain_found),
                "limit_permille": round(1000 * limit),
            }
            words = f"one standard error {score.uncertainty:.3f}"
        else:
            numbers, words = {}, f"no score: {score.value} {why}".rstrip()
        self._note(trained, AuditEvent.MEMBERSHIP_SCORED, numbers, words)
        return membership_reason(score, limit)

    def _note_start(self, trained: Trained) -> None:
        prepared, run = trained.prepared, trained.run
        policy, now = prepared.admitted.verified.in_force.policy, self.containers.now()

        def use(session: Session) -> None:
            note_use(session, run.order_digest, policy, prepared.cohort, now)

        self.containers.audit.append(self._record(trained, AuditEvent.CONTAINER_STARTED, {}), use)

    def _note(self, trained: Trained, event: AuditEvent, numbers: dict[str, int], words: str = "") -> None:
        self.containers.audit.append(self._record(trained, event, numbers, words))

    @staticmethod
    def _record(
        trained: Trained, event: AuditEvent, numbers: dict[str, int], words: str = "scoring"
    ) -> AuditRecord:
        run = trained.run
        about = (
            run.order_digest
            if event is AuditEvent.MEMBERSHIP_SCORED
            else trained.prepared.admitted.order.image_config_digest
        )
        return entry_of(run, event, about, {"round": trained.release.round, **numbers}, words=words)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"weights cannot be removed ({error.strerror})") from error
