"""What a policy with noise lets be asked, query by query, and what that costs one patient.

Every number that leaves with noise is a query and is charged, at every round and run, whether the train stated something or not: the
list depends on documents alone, so what is charged tells nothing of the data. Nothing is saved for tables of different splits: which
split a patient is in is a property of the patient, so replacing one may change both.

Pure: documents in, numbers out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from policies.aggregates import AggregateOutput
from policies.manifest import Interface, TrainKind, TrainManifest
from policies.order import Stage
from policies.policy import DifferentialPrivacy, Policy
from policies.privacy.accounting import NOTHING, Spent, epsilon

_STAGES: Final[dict[TrainKind, tuple[Stage, ...]]] = {
    TrainKind.TRAINING: ("train", "evaluate"),
    TrainKind.EVALUATION: ("evaluate",),
    TrainKind.ANALYSIS: ("analyse",),
}


class QueryKind(StrEnum):
    """What is asked, which decides its sensitivity."""

    UPDATE = "update"
    METRIC = "metric"
    COUNT = "count"
    QUANTILES = "quantiles"
    SUM_PATIENTS = "sum-patients"
    SUM = "sum"
    SUM_OF_SQUARES = "sum-of-squares"


_OF_MEASURE: Final[dict[str, tuple[QueryKind, ...]]] = {
    "count": (QueryKind.COUNT,),
    "quantiles": (QueryKind.QUANTILES,),
    "sum": (QueryKind.SUM_PATIENTS, QueryKind.SUM, QueryKind.SUM_OF_SQUARES),
}


@dataclass(frozen=True, slots=True)
class Query:
    """One query that gets noise and is charged: a vector of numbers with one sensitivity.

    Attributes:
        kind: what it is.
        key: the output's declared key; empty for an update.
    """

    kind: QueryKind
    key: str = ""

    def __str__(self) -> str:
        """Name it, for ledgers and pages: `metric:loss`."""
        return f"{self.kind}:{self.key}" if self.key else str(self.kind)


@dataclass(frozen=True, slots=True)
class PolicyCost:
    """What a policy costs one patient at one station, at most.

    Attributes:
        privacy: the policy's noise and budget.
        stages: the queries of each stage of one round.
        per_release: what each stage's release costs.
        per_round: all stages once.
        per_run: all rounds.
        in_total: all runs, or all releases where the policy permits fewer.
    """

    privacy: DifferentialPrivacy
    stages: dict[Stage, tuple[Query, ...]]
    per_release: dict[Stage, Spent]
    per_round: Spent
    per_run: Spent
    in_total: Spent

    @property
    def epsilon_per_round(self) -> float:
        """At the policy's delta."""
        return epsilon(self.per_round, self.privacy.delta)

    @property
    def epsilon_per_run(self) -> float:
        """At the policy's delta."""
        return epsilon(self.per_run, self.privacy.delta)

    @property
    def epsilon_in_total(self) -> float:
        """At the policy's delta; the station refuses before the policy's epsilon is passed."""
        return epsilon(self.in_total, self.privacy.delta)


def queries_of_stage(policy: Policy, manifest: TrainManifest, stage: Stage) -> tuple[Query, ...]:
    """Return what one release of a stage asks, in the order of the documents: the update, metrics, tables."""
    release, outputs = policy.release, manifest.outputs
    found: list[Query] = []
    if stage == "train" and release.tensors is not None and outputs.tensors is not None:
        found.append(Query(QueryKind.UPDATE))
    found += [
        Query(QueryKind.METRIC, metric.key)
        for metric in outputs.metrics
        if metric.stage == stage and metric.key in release.metrics
    ]
    if stage != "train":
        for item in outputs.aggregates:
            if item.key in release.tables:
                found += queries_of_aggregate(item)
    return tuple(found)


def queries_of_aggregate(item: AggregateOutput) -> tuple[Query, ...]:
    """Return what one table asks: a sum also of how many and of squares."""
    return tuple(Query(kind, item.key) for kind in _OF_MEASURE[getattr(item, "measure", "count")])


def cost_of(privacy: DifferentialPrivacy, queries: Sequence[Query]) -> Spent:
    """Return what queries cost: each gets noise of the same multiplier of its own sensitivity."""
    return Spent.of(privacy.noise_multiplier, len(queries)) if queries else NOTHING


def cost_of_policy(policy: Policy, manifest: TrainManifest) -> PolicyCost | None:
    """Return what a policy costs one patient at one station, at most; None where it asks for no noise."""
    privacy = policy.release.differential_privacy
    if privacy is None:
        return None
    stages = {stage: queries_of_stage(policy, manifest, stage) for stage in _STAGES[policy.kind]}
    per_release = {stage: cost_of(privacy, queries) for stage, queries in stages.items()}
    per_round = sum(per_release.values(), NOTHING)
    per_run = per_round.times(policy.runs.rounds)
    dearest = max(per_release.values(), default=NOTHING)
    in_total = min(per_run.times(policy.runs.runs), dearest.times(policy.runs.releases))
    return PolicyCost(privacy, stages, per_release, per_round, per_run, in_total)


def unbounded_outputs(policy: Policy, manifest: TrainManifest) -> tuple[str, ...]:
    """Return the permitted tables that no noise can make private, by key: a policy with noise must not permit them.

    A count moves by one with one patient only where the station fills in each patient's row apart: from a container that saw this
    patient alone, or from its own data. A program that sees everybody may write everybody's row by one patient, and then the whole
    table moves: of its own columns, and of those that the station joins of them.
    """
    if policy.release.differential_privacy is None or manifest.interface in {
        Interface.MAP,
        Interface.STATION,
    }:
        return ()
    rows = manifest.outputs.rows
    return tuple(
        item.key
        for item in manifest.outputs.aggregates
        if item.key in policy.release.tables
        and (
            rows is None
            or any(rows.column(name) is None or name in rows.stated for name in _columns_of(item))
        )
    )


def _columns_of(item: AggregateOutput) -> tuple[str, ...]:
    return tuple(name for name in (item.column, item.by) if name is not None)
