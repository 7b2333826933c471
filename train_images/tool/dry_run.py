"""A dry run: the train in the real sandbox, on made-up images, its answers through the real guard.

What is not real: the patients, the policy's signatures, and that one station takes part. Decoding, freezing, the launcher,
the container's restrictions, the protocol and the guard are a station's own code. So what passes here fails at a hospital for
reasons of its data or its rules only.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.errors import RefusedError, UsageError
from policies.manifest import TrainKind
from policies.order import HyperparameterValue
from policies.policy import Policy
from policies.refusal_texts import CATALOGUE
from policies.refusals import Reason, Refused
from station.cohorts import CohortKey, FrozenCohort, define, freeze, wipe
from station.cohorts.roster import Roster
from station.egress.contract import ReleaseContract
from train_images.tool.dry_clinical import FINDING
from train_images.tool.dry_cohort import DryCases, DryImages, make_cases
from train_images.tool.dry_measures import Measure, Measured, measures
from train_images.tool.dry_messages import DryMessage, DryTerms, Outcome, converse
from train_images.tool.dry_predictions import DryPredictions
from train_images.tool.dry_privacy import DryPrivacy, dry_privacy
from train_images.tool.dry_terms import draft_for, dry_policy, note_on_size, patients_for
from train_images.tool.folders import PackedTrain
from train_images.tool.hyperparameters import choose
from train_images.tool.initial_weights import Weights, can_make_weights, make_weights, read_weights
from train_images.tool.sandbox_home import DEFAULT_ENGINE, SandboxHome, sandbox_home

DEFAULT_SEED: Final = 20261122

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DryChoice:
    """What the researcher chose.

    Attributes:
        policy: a policy file to be held to; without one the board's draft for this train.
        weights: the initial weights; without them the image makes its own.
        settings: hyperparameters, ``name=value`` each.
        patients: how many to make up; without it enough for the policy.
        rounds: how many rounds.
        seed: of the phantoms.
        pixels: rows and columns of the made-up images; without it small ones.
        slices: of a made-up CT; likewise.
        engine: the container engine's socket.
    """

    policy: Path | None = None
    weights: Path | None = None
    settings: Sequence[str] = ()
    patients: int | None = None
    rounds: int = 1
    seed: int = DEFAULT_SEED
    pixels: int | None = None
    slices: int | None = None
    engine: Path = DEFAULT_ENGINE


@dataclass(frozen=True, slots=True)
class DryReport:
    """What a dry run found.

    Attributes:
        outcome: released, or what became of the message that released nothing.
        policy: what the train was held to.
        patients: in the cohort, by split.
        left_out: images that could not be used, by reason.
        notes: where the phantoms differ from what the train asks for.
        image_shape: of the made-up images, in pixels or voxels; empty where none was made.
        measures: what it took, beside what the manifest asks for.
        log: the end of what the train printed.
        privacy: what the policy's noise costs patients and does to figures; None where it has none.
        predictions: what the train marks and measures for the hospital alone; None where it declares none.
    """

    train: str
    version: str
    outcome: Outcome
    policy: str
    hyperparameters: dict[str, HyperparameterValue]
    patients: dict[str, int]
    left_out: dict[str, int]
    notes: tuple[str, ...]
    messages: tuple[DryMessage, ...]
    image_shape: tuple[int, ...]
    measures: tuple[Measure, ...]
    log: str
    privacy: DryPrivacy | None = None
    predictions: DryPredictions | None = None

    @property
    def problem(self) -> DryMessage | None:
        """The message that released nothing, or None."""
        return next((message for message in self.messages if message.outcome != "released"), None)


def dry_run(train: PackedTrain, choice: DryChoice, progress: Progress) -> DryReport:
    """Try a train.

    1. The policy, the hyperparameters and the engine are there.
    2. The weights are given or made, fit what the manifest says it returns, and leave room for an update under the policy.
    3. Phantoms are made and a cohort is frozen from them, as the policy grants it.
    4. The container starts and is asked round by round; the guard judges each answer, and the canary each update.

    Raises:
        RefusedError: a rule says no before the train runs.
        UnavailableError: no container engine answers.
        UsageError: weights are needed, not given, and the image does not make its own.
        PhtError: from making phantoms or weights.
    """
    # 1
    manifest = train.manifest
    policy = dry_policy(train, choice.policy)
    config = choose(manifest, choice.settings)
    notes: tuple[str, ...] = ()
    with sandbox_home(train, choice.engine) as home:
        # 2
        weights = _weights(home, train, choice, progress)
        layout = None if weights is None else weights.layout
        if choice.policy is None and layout is not None:
            without, policy = policy, draft_for(train.path, layout.tensors)
            notes = note_on_size(policy, without)
        contract = ReleaseContract.build(manifest, policy, layout)
        if contract.problems:
            raise _refusal(contract.problems)
        # 3
        patients = patients_for(policy, choice.patients)
        progress(f"making images of {patients} patients who do not exist")
        images = DryImages(patients, choice.seed, choice.pixels, choice.slices)
        cases = make_cases(manifest, home.path / "phantoms", images)
        cohort, roster = _freeze(home, train, policy, cases, choice.seed)
        try:
            # 4
            share = policy.runs.failed_patients_share
            limit = policy.release.membership_limit
            terms = DryTerms(train, cohort, roster, contract, config, choice.rounds, weights, share, limit)
            said = converse(home, terms, progress)
        finally:
            wipe(cohort)
    by_split = {split.value: len(found) for split, found in cohort.patients_by_split.items() if found}
    seen = Measured(said.start_s, said.use, by_split, cases.shape)
    return DryReport(
        train=manifest.name,
        version=manifest.version,
        outcome=said.messages[-1].outcome,
        policy="the board's draft" if choice.policy is None else f"{policy.id} version {policy.version}",
        hyperparameters=config,
        patients=by_split,
        left_out={reason.value: count for reason, count in cohort.left_out.items()},
        notes=(*notes, *_notes(cases)),
        messages=said.messages,
        image_shape=cases.shape,
        measures=measures(manifest, said.messages, seen),
        log=said.log,
        privacy=dry_privacy(policy, manifest),
        predictions=said.predictions,
    )


def _freeze(
    home: SandboxHome, train: PackedTrain, policy: Policy, cases: DryCases, seed: int
) -> tuple[FrozenCohort, Roster]:
    definition = define(policy, train.manifest)
    if isinstance(definition, Refused):
        raise _refusal(definition.reasons)
    # Any key will do, and the same one each time: a dry run repeated is the same dry run.
    key = CohortKey(hashlib.sha256(f"dry run {seed}".encode()).digest())
    frozen = freeze(definition, cases.cases, home.cohorts, key)
    if isinstance(frozen, Refused):
        raise _refusal(frozen.reasons)
    return frozen, Roster.of(frozen, definition, key)


def _weights(home: SandboxHome, train: PackedTrain, choice: DryChoice, progress: Progress) -> Weights | None:
    if train.manifest.kind is TrainKind.ANALYSIS:
        return None
    if choice.weights is not None:
        return read_weights(choice.weights)
    if not can_make_weights(train):
        raise UsageError(
            "training and evaluation start from weights, and none are given",
            hint="Give --weights, or let the image make its own: see `pht-train init-weights --help`.",
        )
    progress("making initial weights with the image's own program")
    return make_weights(train, home, home.work / "initial.safetensors")


def _notes(cases: DryCases) -> tuple[str, ...]:
    notes = []
    if cases.borrowed_label is not None:
        notes.append(f"the phantoms have no label {cases.borrowed_label}: their {FINDING} stands in for it")
    if cases.empty_fields:
        notes.append(f"the profile has no {', '.join(cases.empty_fields)}: these fields are empty")
    if cases.drawn_fields:
        names = ", ".join(cases.drawn_fields)
        notes.append(f"drawn by chance, without regard to the patient or the images: {names}")
    return tuple(notes)


def _refusal(reasons: Sequence[Reason]) -> RefusedError:
    words = "; ".join(reason.detail or reason.code.value for reason in reasons)
    return RefusedError(reasons[0].code, words, hint=CATALOGUE[reasons[0].code].do)
