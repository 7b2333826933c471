"""What one run may release: the closed list that both the manifest declares and the policy permits.

Made before the train has said anything, from documents that are signed and from the shapes of the inbound weights. Pure.
Invariants: nothing is in the contract that is not in both documents; what a station cannot yet enforce (secure
aggregation) makes a contract under which nothing leaves, see `ReleaseContract.problems`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from policies.aggregates import AggregateOutput
from policies.documents import canonical_json, digest_of
from policies.errors import WireError
from policies.manifest import TrainKind, TrainManifest
from policies.order import Stage
from policies.outputs import MetricOutput
from policies.policy import DifferentialPrivacy, DominanceRules, Policy, TensorRules
from policies.privacy import Query, queries_of_stage, unbounded_outputs
from policies.refusals import Reason, RefusalCode
from policies.rules.capacity import release_bits
from policies.splits import Split
from policies.wire.arrays import MAX_HEADER_BYTES, ArrayLayout
from policies.wire.releases import ReleaseTensor, release_tensors, update_bytes

GUARD_VERSION: Final = 1
EXAMPLES_BASE: Final = 10

STAGES_OF_KIND: Final[Mapping[TrainKind, tuple[Stage, ...]]] = {
    TrainKind.TRAINING: ("train", "evaluate"),
    TrainKind.EVALUATION: ("evaluate",),
    TrainKind.ANALYSIS: ("analyse",),
}


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """The station's own counts of one split.

    Attributes:
        patients: distinct patients.
        images: images (cases).
        most_images_of_one: the most that one patient has; without it the most that the two counts allow.
    """

    patients: int
    images: int
    most_images_of_one: int | None = None

    @property
    def images_per_patient(self) -> int:
        """An upper bound on the images of one patient, at least 1."""
        possible = self.images - self.patients + 1
        return max(1, possible if self.most_images_of_one is None else self.most_images_of_one)


_NONE: Final = SplitCounts(0, 0)


@dataclass(frozen=True, slots=True)
class CohortCounts:
    """The station's own counts of a frozen cohort, exact; they never leave as they are."""

    splits: Mapping[Split, SplitCounts]

    @classmethod
    def from_cohort(
        cls,
        patients_by_split: Mapping[Split, frozenset[str]],
        images_by_split: Mapping[Split, int],
        most_images_of_one: Mapping[Split, int] | None = None,
    ) -> Self:
        """Return the counts of a frozen cohort (`station.cohorts.FrozenCohort`)."""
        most = most_images_of_one or {}
        return cls(
            {
                split: SplitCounts(len(patients), images_by_split.get(split, 0), most.get(split))
                for split, patients in patients_by_split.items()
            }
        )

    def of(self, split: Split) -> SplitCounts:
        """Return one split's counts; a split that is not there has none."""
        return self.splits.get(split, _NONE)

    @property
    def patients(self) -> int:
        """All patients; splits are by patient, so none is counted twice."""
        return sum(counts.patients for counts in self.splits.values())


@dataclass(frozen=True, slots=True)
class ReleaseContract:
    """The closed list of what may leave, and the limits on it.

    Attributes:
        kind: of the train.
        problems: why nothing may leave under these documents at all; empty where something may.
        tensors: what a training reply must hold; None while the inbound weights are not known.
        tensor_rules: the policy's rules about them; None where it permits no tensors.
        metrics: every metric the manifest declares, with no more decimals than the policy has.
        permitted_metrics: their keys that the policy permits; the others are left out.
        permitted_tables: likewise.
        maximum_bytes: of one release, arrays and numbers together.
        minimum_patients: of the whole cohort.
        minimum_patients_per_metric: of a metric's or table's split.
        minimum_cell_count: the policy's; a table's own may be higher.
        count_rounding: counts in tables leave as multiples of this.
        aggregates: every table that the station makes of patients' rows; `permitted_tables` names these too.
        error_codes: of the train's own, those that the policy grants; any other is counted as a crash.
        dominance: when a sum tells too much of few patients.
        manifest: of a train of rows, which the station counts by it.
        privacy: the noise that every number gets; None where the policy has none.
        queries: per stage, what gets noise and is charged.
        capacity_bits: per stage, an upper bound on what one release can carry out (`policies.rules.capacity`).
        rules_digest: over all of the above but `problems` and `tensors`: names the rule set in the ledger.
    """

    kind: TrainKind
    problems: tuple[Reason, ...]
    tensors: tuple[ReleaseTensor, ...] | None
    tensor_rules: TensorRules | None
    metrics: tuple[MetricOutput, ...]
    permitted_metrics: frozenset[str]
    permitted_tables: frozenset[str]
    maximum_bytes: int
    minimum_patients: int
    minimum_patients_per_metric: int
    minimum_cell_count: int
    rules_digest: str
    count_rounding: int = 1
    aggregates: tuple[AggregateOutput, ...] = ()
    error_codes: frozenset[str] = frozenset()
    dominance: DominanceRules = field(default_factory=DominanceRules)
    manifest: TrainManifest | None = None
    capacity_bits: Mapping[str, int] = field(default_factory=dict)
    privacy: DifferentialPrivacy | None = None
    queries: Mapping[str, tuple[Query, ...]] = field(default_factory=dict)

    @classmethod
    def build(cls, manifest: TrainManifest, policy: Policy, inbound_layout: ArrayLayout | None) -> Self:
        """Work out what may leave.

        Args:
            manifest: the train's, whose digest the policy names (admission holds that).
            policy: in force.
            inbound_layout: of the weights this round starts from; None where the kind takes none, or they are not there
                yet: nothing trained may leave under such a contract.
        """
        problems = list(_unenforceable(manifest, policy))
        rules, outputs = policy.release.tensors, manifest.outputs.tensors
        tensors: tuple[ReleaseTensor, ...] | None = None
        if outputs is None or rules is None:
            tensors = ()
        elif inbound_layout is not None:
            try:
                tensors = release_tensors(outputs, rules, inbound_layout.tensors)
                problems += _too_large(tensors, policy.release.maximum_bytes)
            except WireError as error:
                problems.append(Reason(RefusalCode.RELEASE_NOT_PERMITTED, error.message))
        return cls(
            kind=manifest.kind,
            problems=tuple(problems),
            tensors=tensors,
            tensor_rules=rules if outputs is not None else None,
            metrics=tuple(policy.release.narrowed(metric) for metric in manifest.outputs.metrics),
            permitted_metrics=frozenset(policy.release.metrics),
            permitted_tables=frozenset(policy.release.tables),
            maximum_bytes=policy.release.maximum_bytes,
            minimum_patients=policy.data.minimum_patients,
            minimum_patients_per_metric=policy.release.minimum_patients_per_metric,
            minimum_cell_count=policy.release.minimum_cell_count,
            rules_digest=_rules_digest(manifest, policy),
            count_rounding=policy.release.count_rounding,
            aggregates=manifest.outputs.aggregates,
            error_codes=frozenset(manifest.error_codes) & frozenset(policy.release.error_codes),
            dominance=policy.release.dominance,
            manifest=manifest if manifest.outputs.aggregates else None,
            privacy=policy.release.differential_privacy,
            queries={
                stage: queries_of_stage(policy, manifest, stage)
                for stage in STAGES_OF_KIND[manifest.kind]
                if policy.release.differential_privacy is not None
            },
            capacity_bits={
                stage: release_bits(policy.release, manifest, stage, tensors or ())
                for stage in STAGES_OF_KIND[manifest.kind]
            },
        )

    def releases_tensors(self, stage: Stage) -> bool:
        """Return whether a reply to this stage carries arrays."""
        return stage == "train" and self.tensor_rules is not None

    def reply_arrays_limit(self, stage: Stage) -> int:
        """Return the ceiling of the arrays that are read from a train at this stage, in bytes."""
        if not self.releases_tensors(stage) or self.tensors is None:
            return 0
        return 8 + MAX_HEADER_BYTES + sum(tensor.reply.nbytes for tensor in self.tensors)

    def example_splits(self, stage: Stage) -> tuple[Split, ...]:
        """Return the splits whose images a stage computes on."""
        if stage == "train":
            return (Split.TRAINING,)
        if stage == "evaluate":
            return (Split.TESTING,) if self.kind is TrainKind.EVALUATION else (Split.VALIDATION,)
        return (Split.TRAINING, Split.VALIDATION)


def rounded_examples(images: int) -> int:
    """Return the example count that leaves: the nearest multiple of 10, halves up, and at least 10.

    >>> [rounded_examples(n) for n in (3, 14, 15, 120)]
    [10, 10, 20, 120]
    """
    return max(EXAMPLES_BASE, (images + EXAMPLES_BASE // 2) // EXAMPLES_BASE * EXAMPLES_BASE)


def _unenforceable(manifest: TrainManifest, policy: Policy) -> list[Reason]:
    release = policy.release
    found = [
        (
            policy.kind is not manifest.kind,
            RefusalCode.RELEASE_NOT_PERMITTED,
            "the policy is for another kind of train",
        ),
        (
            bool(unbounded_outputs(policy, manifest)),
            RefusalCode.RELEASE_NOT_PERMITTED,
            "the policy permits tables whose rows no noise makes private",
        ),
        (
            release.membership_limit is not None and not manifest.outputs.membership_scores,
            RefusalCode.RELEASE_UNSCORED,
            "the policy bounds membership scores, which the train does not answer",
        ),
        (
            release.secure_aggregation,
            RefusalCode.SECURE_AGGREGATION_UNSUPPORTED,
            "the policy asks for secure aggregation",
        ),
    ]
    return [Reason(code, detail) for applies, code, detail in found if applies]


def _too_large(tensors: tuple[ReleaseTensor, ...], ceiling: int) -> list[Reason]:
    """Say before anything is trained that no update will leave: how large one is follows from the weights alone."""
    update = update_bytes(tensors)
    if update <= ceiling:
        return []
    text = f"an update of these weights holds {update:,} bytes, and release.maximum_bytes is {ceiling:,}"
    return [Reason(RefusalCode.RELEASE_TOO_LARGE, text)]


def _rules_digest(manifest: TrainManifest, policy: Policy) -> str:
    document = {
        "guard": GUARD_VERSION,
        "kind": manifest.kind.value,
        "outputs": manifest.outputs.model_dump(mode="json"),
        "release": policy.release.model_dump(mode="json"),
        "minimum_patients": policy.data.minimum_patients,
    }
    return digest_of(canonical_json(document))
