"""The canary of a dry run: how well an update tells its own patients, on patients who do not exist; the researcher may see it.

The same blind cohort, the same second container and the same statistics as at a station. What phantoms say of real patients is little:
a train that overfits here overfits there, one that does not may still.
"""

from dataclasses import dataclass
from pathlib import Path

from policies.errors import UsageError
from policies.order import HyperparameterValue
from station.cohorts import FrozenCohort
from station.cohorts.blind import blind_cohort, blind_patients
from station.egress.canary.decision import MINIMUM_PATIENTS, MembershipScore, Unscored, score_update
from station.sandbox.scoring import ScoreRequest, ScoringContainer
from station.sandbox.session import TrainSandbox
from station.sandbox.spec import ContainerSpec, TrainFailure
from train_images.tool.sandbox_home import SandboxHome

_SEED = b"a dry run draws the same patients each time"


@dataclass(frozen=True, slots=True)
class DryUpdate:
    """An update of a dry run.

    Attributes:
        round: from 1.
        config: the hyperparameters.
        before: the weights that the round started from.
        after: with those and what would be released.
        timeout_s: of a message, by the manifest.
    """

    round: int
    config: dict[str, HyperparameterValue]
    before: Path
    after: Path
    timeout_s: float


def dry_score(
    home: SandboxHome, cohort: FrozenCohort, beside: ContainerSpec, update: DryUpdate
) -> MembershipScore | Unscored:
    """Score an update in a container beside the one that trained.

    Args:
        home: of the dry run, with room for two containers.
        cohort: of phantoms, which the train was given.
        beside: what the container that trained was started with.
        update: to score.

    Raises:
        UsageError: there are too few phantoms to score anything on.
        RefusedError: the launcher says no.
        UnavailableError: the engine does not answer.
        StateError, StorageError: the cohort cannot be read, or the disk.
    """
    if blind_patients(cohort) < MINIMUM_PATIENTS:
        raise UsageError(
            f"{blind_patients(cohort)} patients are trained on or held back; a score needs {MINIMUM_PATIENTS} of each",
            hint="Make up more: --patients.",
        )
    with blind_cohort(cohort, _SEED) as blind:
        run_id = f"{beside.run_id}-score-{update.round}"
        spec = beside.model_copy(
            update={
                "run_id": run_id,
                "cohort_dir": str(blind.path),
                "control_dir": str(home.control / run_id),
                "beside": beside.run_id,
            }
        )
        container = ScoringContainer(TrainSandbox(home.launcher), spec)
        answer = container.ask(
            ScoreRequest(
                update.round,
                update.config,
                update.before,
                update.after,
                home.work / "scores.safetensors",
                update.timeout_s,
            )
        )
        if isinstance(answer, TrainFailure):
            return Unscored.FAILED
        return score_update(blind.cases, answer.before, answer.after)
