"""What noise would cost patients, and what it would do to the numbers of this very train: epsilon, and the loss of utility. Pure.

The patients of a dry run do not exist, so nobody is charged; the noise is the real one. What is said of an update is measured on
it: how long it is before clipping, and how long the noise is that one station adds.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from policies.manifest import TrainManifest
from policies.policy import DifferentialPrivacy, Policy
from policies.privacy import QueryKind, cost_of, cost_of_policy, epsilon, spread_of
from policies.rules.privacy_rules import granted
from policies.rules.privacy_words import metric_spread
from station.egress.contract import ReleaseContract
from station.egress.training.noising import MeasuredUpdate, measure_update


@dataclass(frozen=True, slots=True)
class UpdateNoise:
    """One update beside the noise on it.

    Attributes:
        norm: of the deltas that the train returned.
        kept: the share of it that clipping leaves.
        spread: standard deviation of the noise on each number.
        noise_norm: how long the noise on all numbers together is, about.
        numbers: how many.
    """

    norm: float
    kept: float
    spread: float
    noise_norm: float
    numbers: int

    @property
    def signal(self) -> float:
        """The clipped update's length beside that of one station's noise."""
        return self.norm * self.kept / self.noise_norm


@dataclass(frozen=True, slots=True)
class DryPrivacy:
    """What a policy's noise costs and does.

    Attributes:
        delta: the policy's.
        per_release: epsilon of one release of each stage.
        per_run: epsilon of one run of all rounds that the policy permits.
        epsilon: the policy's, over all runs.
        runs: how many whole runs it lasts for, of those that the policy permits.
        metrics: standard deviation of one station's noise on each permitted metric, beside its range.
        tables: likewise on each number of each query that a table asks, beside the most that one patient adds to it.
    """

    delta: float
    per_release: dict[str, float]
    per_run: float
    epsilon: float
    runs: tuple[int, int]
    metrics: dict[str, tuple[float, float]]
    tables: dict[str, tuple[float, float]]


def dry_privacy(policy: Policy, manifest: TrainManifest) -> DryPrivacy | None:
    """Work out what a policy's noise costs and does; None where it has none."""
    privacy, cost = policy.release.differential_privacy, cost_of_policy(policy, manifest)
    if privacy is None or cost is None:
        return None
    lasts = granted(privacy).units // cost.per_run.units if cost.per_run.units else policy.runs.runs
    return DryPrivacy(
        delta=privacy.delta,
        per_release={
            stage: epsilon(cost_of(privacy, queries), privacy.delta)
            for stage, queries in cost.stages.items()
            if queries
        },
        per_run=cost.epsilon_per_run,
        epsilon=privacy.epsilon,
        runs=(min(lasts, policy.runs.runs), policy.runs.runs),
        metrics={
            metric.key: (metric_spread(privacy, metric), float(metric.maximum - metric.minimum))
            for metric in manifest.outputs.metrics
            if metric.key in policy.release.metrics
        },
        tables={
            str(query): spread
            for queries in cost.stages.values()
            for query in queries
            if query.kind is not QueryKind.METRIC and (spread := spread_of(privacy, query, manifest))
        },
    )


def update_noise(contract: ReleaseContract, reply: Path | None, inbound: Path | None) -> UpdateNoise | None:
    """Measure an update beside the noise that it would get; None where none would leave with noise.

    Args:
        contract: of the dry run.
        reply: what the train returned.
        inbound: the weights of the round.

    Raises:
        StorageError: a file cannot be read.
    """
    if contract.privacy is None or reply is None or inbound is None:
        return None
    measured = measure_update(contract, reply, inbound)
    return _beside(contract.privacy, measured) if isinstance(measured, MeasuredUpdate) else None


def _beside(privacy: DifferentialPrivacy, update: MeasuredUpdate) -> UpdateNoise:
    numbers = sum(pair.rule.reply.elements for pair in update.pairs)
    spread = privacy.noise_multiplier * math.sqrt(update.grid.sensitivity_squared) * update.grid.step
    return UpdateNoise(update.norm, update.scale, spread, spread * math.sqrt(numbers), numbers)


def cost_lines(found: DryPrivacy) -> list[str]:
    """Say what the noise costs each patient, and what it does to figures and tables."""
    releases = ", ".join(f"{stage} {_shown(cost)}" for stage, cost in found.per_release.items())
    lasts, permitted = found.runs
    cost = (
        f"Privacy: each release costs each patient epsilon {releases or '0'} (delta {found.delta:g}), one run {_shown(found.per_run)}; "
        f"the policy grants {found.epsilon:g}, which lasts for {lasts} of its {permitted} runs"
    )
    lines = [
        f"Noise on {key}: standard deviation {spread:.3g}, of a range of {width:g}; over n stations and rounds divided by the root of n"
        for key, (spread, width) in found.metrics.items()
    ]
    lines += [
        f"Noise on {query}: standard deviation {spread:.3g} of each number, where one patient counts for up to {most:g}"
        for query, (spread, most) in found.tables.items()
    ]
    return [cost, *lines]


def update_line(round_: int, found: UpdateNoise) -> str:
    """Say what the noise does to one update, and how many stations would have to be averaged for it to be heard."""
    if found.signal <= 0:
        return f"Noise on the update of round {round_}: the update is all zeros, the noise {found.noise_norm:.3g} long"
    clipped = "" if found.kept >= 1 else f", clipped to {found.norm * found.kept:.3g}"
    return (
        f"Noise on the update of round {round_}: its length is {found.norm:.3g}{clipped}; the noise of one station is {found.noise_norm:.3g} "
        f"long over {found.numbers:,} numbers ({found.spread:.3g} each), {1 / found.signal:.3g} times the update. In an average over "
        f"{math.ceil(found.signal**-2):,} stations or rounds that agree, both are equally long"
    )


def _shown(value: float) -> str:
    return "without bound" if math.isinf(value) else f"{value:.3g}"
