"""A policy's noise in plain words: what it promises whom, what it costs, what it does not cover, and what it does to the numbers.

Describes; decides nothing. Says epsilon as what it means: how much likelier anybody's conclusion can become by one patient's data.
"""

import math
from typing import Final

from policies.manifest import Interface, TrainKind, TrainManifest
from policies.outputs import MetricOutput
from policies.policy import DifferentialPrivacy, Policy
from policies.privacy import PolicyCost, cost_of_policy, epsilon, unbounded_outputs
from policies.rules.privacy_rules import granted

_LARGE_EPSILON: Final = 10.0
"""Above it the promise is called weak (Ponomareva et al. 2023, tier 3)."""
_MANY: Final = 1e6

NOT_COVERED: Final = (
    "Noise covers numbers. It does not cover how many patients take part, in all and in each part of the cohort (training, validation, "
    "testing), which is told rounded to tens and by which a figure of too few is left out; when an answer comes; and whether a message "
    "failed, which a train can bring about on purpose, and which is told without saying how."
)
ONE_KERNEL: Final = (
    "That a train sees one patient at a time holds for what its containers are given, and they run on one kernel: a program written for "
    "the purpose can signal from one patient's container to another's through what the host shares (load, memory pressure, timing), and "
    "then one patient can change many rows. So for a train's own columns the promise is one about honest programs, and rests on reading "
    "the train's code; for the station's own counting of clinical data it holds against anybody."
)


def not_covered(policy: Policy, manifest: TrainManifest | None) -> str:
    """Say what a policy's noise does not cover; without the manifest, an analysis is taken for one that runs a program."""
    mapped = policy.kind is TrainKind.ANALYSIS if manifest is None else manifest.interface is Interface.MAP
    return f"{NOT_COVERED} {ONE_KERNEL}" if mapped else NOT_COVERED


def noise_in_words(policy: Policy, manifest: TrainManifest | None) -> tuple[str, ...]:
    """Say what a policy's noise promises and costs; empty where it has none.

    Args:
        policy: as it is written.
        manifest: the train's, which says what a release asks; without it the cost cannot be told.
    """
    privacy = policy.release.differential_privacy
    if privacy is None:
        return ()
    lines = [
        (
            "Differential privacy: each hospital adds random noise to every number before it leaves. For each of its patients it promises "
            f"that whatever anybody concludes from all that ever leaves there under this policy is at most {likelier(privacy.epsilon)} as "
            f"likely as if another patient of the same part of the cohort (training, validation or testing) had been in the place of this "
            f"one (epsilon {privacy.epsilon:g}), but for a chance of "
            f"{chance(privacy.delta)} (delta {privacy.delta:g})."
        ),
        (
            f"The noise is {privacy.noise_multiplier:g} times as wide as the most that one patient can change a number. The station draws it "
            "itself, once for each release; nobody can ask for it again."
        ),
    ]
    cost = None if manifest is None else cost_of_policy(policy, manifest)
    if cost is not None:
        lines += _costs(policy, cost)
    return (
        *lines,
        "Each station keeps for each patient what was spent, over all trains, and stops before anybody's is passed.",
    )


def _costs(policy: Policy, cost: PolicyCost) -> list[str]:
    delta, privacy = cost.privacy.delta, cost.privacy
    stages = "; ".join(
        f"{stage}: {_shown(epsilon(cost.per_release[stage], delta))} for {len(queries)} "
        f"{'number' if len(queries) == 1 else 'numbers or sets of numbers'}"
        for stage, queries in cost.stages.items()
        if queries
    )
    runs = granted(privacy).units // cost.per_run.units if cost.per_run.units else policy.runs.runs
    lines = [
        f"It costs each patient, as epsilon at this delta: one release ({stages or 'nothing'}); one run {_shown(cost.epsilon_per_run)}."
    ]
    if runs >= policy.runs.runs:
        return [
            *lines,
            f"All runs that the policy permits together cost {_shown(cost.epsilon_in_total)} of {privacy.epsilon:g}.",
        ]
    return [
        *lines,
        f"The budget lasts for {runs} of the {policy.runs.runs} runs that the policy permits; then stations refuse.",
    ]


def noise_attention(policy: Policy, manifest: TrainManifest | None) -> tuple[str, ...]:
    """Return what a member should look at in a policy's noise."""
    privacy = policy.release.differential_privacy
    if privacy is None:
        return ()
    points = []
    if privacy.epsilon > _LARGE_EPSILON:
        points.append(
            f"epsilon is {privacy.epsilon:g}: a promise of at most {likelier(privacy.epsilon)} as likely protects little."
        )
    if privacy.delta * policy.data.minimum_patients > 0.01:
        points.append(
            f"delta is {privacy.delta:g}: for that share of {policy.data.minimum_patients} patients or more the promise may fail; "
            "well below one by their number is usual."
        )
    if policy.release.membership_limit is not None:
        points.append(
            "membership_limit looks at patients without noise: that it keeps an update back is one bit more than epsilon says."
        )
    if manifest is None:
        return tuple(points)
    if tables := unbounded_outputs(policy, manifest):
        points.append(
            f"Stations will refuse: no noise makes {', '.join(tables)} private, because a program that sees every patient writes the rows."
        )
    cost = cost_of_policy(policy, manifest)
    if cost is not None and cost.per_run > granted(privacy):
        points.append(
            f"Stations will refuse: one run costs epsilon {_shown(cost.epsilon_per_run)}, and the policy grants {privacy.epsilon:g}."
        )
    return (*points, *_useless(policy, privacy, manifest))


def _useless(policy: Policy, privacy: DifferentialPrivacy, manifest: TrainManifest) -> list[str]:
    vague = [
        (
            f"{metric.key} runs from {metric.minimum:g} to {metric.maximum:g}, and one station's noise on it spreads "
            f"{metric_spread(privacy, metric):.3g} (standard deviation): a single figure says next to nothing. A narrower range has less "
            "noise."
        )
        for metric in manifest.outputs.metrics
        if metric.key in policy.release.metrics and metric_spread(privacy, metric) >= _width(metric) / 4
    ]
    spread, patients = count_spread(privacy), policy.data.minimum_patients
    cells = {
        item.key: max(1, len(manifest.aggregate_lines(item)) * len(manifest.aggregate_columns(item)))
        for item in manifest.outputs.aggregates
        if item.key in policy.release.tables
    }
    return vague + [
        (
            f"The noise on each cell of {key} spreads {spread:.3g} patients (standard deviation), and a station may have {patients} "
            f"patients for {count} cells: fewer cells or more patients say more."
        )
        for key, count in cells.items()
        if spread >= patients / count / 4
    ]


def metric_spread(privacy: DifferentialPrivacy, metric: MetricOutput) -> float:
    """Return the standard deviation of the noise on a metric: one patient can change it by its whole range."""
    return privacy.noise_multiplier * _width(metric)


def count_spread(privacy: DifferentialPrivacy) -> float:
    """Return the standard deviation of the noise on a count of patients: replacing one moves two cells by one each."""
    return privacy.noise_multiplier * math.sqrt(2)


def _width(metric: MetricOutput) -> float:
    return float(metric.maximum - metric.minimum)


def likelier(limit: float) -> str:
    """Say an epsilon as a factor.

    >>> [likelier(limit) for limit in (0.1, 1.0, 3.0, 20.0)]
    ['1.11 times', '2.72 times', '20.1 times', 'more than a million times']
    """
    factor = math.exp(min(limit, 50.0))
    return "more than a million times" if factor > _MANY else f"{factor:.3g} times"


def chance(delta: float) -> str:
    """Say a delta as a chance.

    >>> chance(1e-6)
    '1 in 1,000,000'
    """
    return f"1 in {1 / delta:,.0f}"


def _shown(value: float) -> str:
    return "without bound" if math.isinf(value) else f"{value:.3g}"
