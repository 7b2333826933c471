"""What noise leaves of a result, before anybody is charged: for `pht-train check`, which a researcher asks before a board does.

Expectations from documents and from the norm that a dry run measured; nothing here looks at patients or draws anything. Pure.
"""

import math
from dataclasses import dataclass
from typing import Final

from policies.aggregates import AggregateOutput
from policies.manifest import TrainManifest
from policies.order import Stage
from policies.policy import Policy
from policies.privacy.costs import Query, QueryKind, queries_of_stage

SHARE_OF_NORM: Final = 0.99
"""Of the clipping norm: to what an update is scaled, so that rounding onto the grid has room."""


@dataclass(frozen=True, slots=True)
class UpdateUtility:
    """Signal and noise of one update.

    Attributes:
        norm: of the deltas before clipping.
        kept: the factor that clipping leaves of them, 1 where nothing is clipped.
        signal: the norm after clipping.
        noise: the expected norm of the noise, sigma times the root of the number of parameters.
        ratio: signal over noise, of one station's update.
        averaged_ratio: of the average of so many stations, if their updates agree; the noise of each is drawn by itself.
        stations: that are averaged.
        projection_ratio: signal over the noise in the direction of the update alone: what a search along one direction would have.
    """

    norm: float
    kept: float
    signal: float
    noise: float
    ratio: float
    averaged_ratio: float
    stations: int
    projection_ratio: float

    def in_words(self) -> str:
        """Say it in a sentence.

        >>> update_utility(10.0, 1.0, 2.0, 1_000_000, 4).in_words()
        "the update's norm is 10, of which clipping leaves 0.99; noise has norm 4000 on it (signal to noise 0.00025), 2000 after averaging 4 stations (0.00049)"
        """
        averaged = self.noise / math.sqrt(self.stations)
        return (
            f"the update's norm is {self.norm:.3g}, of which clipping leaves {self.signal:.3g}; noise has norm {_short(self.noise)} "
            f"on it (signal to noise {self.ratio:.2g}), {_short(averaged)} after averaging {self.stations} stations "
            f"({self.averaged_ratio:.2g})"
        )


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def update_utility(
    norm: float, clipping_norm: float, noise_multiplier: float, elements: int, stations: int = 1
) -> UpdateUtility:
    """Return what noise leaves of an update.

    Args:
        norm: of the deltas, as a dry run measured it.
        clipping_norm: the policy's.
        noise_multiplier: the policy's.
        elements: how many numbers the released parameters hold.
        stations: whose updates are averaged.

    Raises:
        ValueError: a number that must be positive is not.
    """
    if not (norm >= 0 and clipping_norm > 0 and noise_multiplier > 0 and elements > 0 and stations > 0):
        raise ValueError("norms, noise, elements and stations are positive")
    kept = min(1.0, SHARE_OF_NORM * clipping_norm / norm) if norm > 0 else 1.0
    sigma = noise_multiplier * 2 * clipping_norm
    signal, noise = norm * kept, sigma * math.sqrt(elements)
    ratio = signal / noise
    return UpdateUtility(
        norm, kept, signal, noise, ratio, ratio * math.sqrt(stations), stations, signal / sigma
    )


@dataclass(frozen=True, slots=True)
class ExpectedError:
    """How far a noisy number is off.

    Attributes:
        query: whose.
        standard_error: of each number, before it is held to its range.
        typical: what to compare it with: a metric's range, all patients of the cohort, or their largest possible sum.
        averaged: the relative error of the mean (metrics) or of the sum (tables) of so many stations.
        stations: so many.
    """

    query: Query
    standard_error: float
    typical: float
    averaged: float
    stations: int

    @property
    def relative(self) -> float:
        """The standard error over what it is compared with."""
        return self.standard_error / self.typical

    def in_words(self) -> str:
        """Say it in a sentence.

        >>> ExpectedError(Query(QueryKind.COUNT, "ages"), 2.83, 200.0, 0.007, 4).in_words()
        'count:ages: each number is off by 2.83 (1.4%), over 4 stations together by 0.7%'
        """
        return (
            f"{self.query}: each number is off by {self.standard_error:.3g} ({_percent(self.relative)}), "
            f"over {self.stations} stations together by {_percent(self.averaged)}"
        )


def _percent(share: float) -> str:
    return f"{share * 100:.2g}%"


def expected_errors(
    policy: Policy, manifest: TrainManifest, stage: Stage, patients: int, stations: int = 1
) -> tuple[ExpectedError, ...]:
    """Return how far each metric and table of a stage will be off; empty where the policy has no noise.

    Args:
        policy: with noise.
        manifest: the train's.
        stage: whose outputs.
        patients: of one station's cohort.
        stations: over how many a mean or a sum is taken.

    Raises:
        ValueError: there are no patients or no stations.
    """
    if patients < 1 or stations < 1:
        raise ValueError("patients and stations are positive")
    privacy = policy.release.differential_privacy
    if privacy is None:
        return ()
    found = []
    for query in queries_of_stage(policy, manifest, stage):
        sizes = sensitivity_of(query, manifest)
        if sizes is None:
            continue
        sensitivity, unit = sizes
        error = privacy.noise_multiplier * sensitivity
        typical = unit if query.kind is QueryKind.METRIC else unit * patients
        # A mean of k has error/sqrt(k) on `typical`, a sum of k has error*sqrt(k) on k times it: the same share.
        found.append(ExpectedError(query, error, typical, error / typical / math.sqrt(stations), stations))
    return tuple(found)


def sensitivity_of(query: Query, manifest: TrainManifest) -> tuple[float, float] | None:
    """Return how far one patient moves a metric or table (L2, replace-one), and the most that one patient adds; None for an update.

    Stations use the same on their grids, rounded up to whole steps (`station.egress.privacy.mechanisms`).
    """
    if query.kind is QueryKind.METRIC:
        metric = next((item for item in manifest.outputs.metrics if item.key == query.key), None)
        return None if metric is None else (metric.maximum - metric.minimum, metric.maximum - metric.minimum)
    if query.kind in {QueryKind.COUNT, QueryKind.QUANTILES, QueryKind.SUM_PATIENTS}:
        return math.sqrt(2), 1.0
    item = next((item for item in manifest.outputs.aggregates if item.key == query.key), None)
    bounds = None if item is None else _bounds_of(item, manifest)
    if bounds is None:
        return None
    low, high = bounds
    largest = max(abs(low), abs(high))
    if query.kind is QueryKind.SUM_OF_SQUARES:
        return math.sqrt(2) * largest**2, largest**2
    return max(math.sqrt(2) * largest, high - low), largest


def _bounds_of(item: AggregateOutput, manifest: TrainManifest) -> tuple[float, float] | None:
    rows = manifest.outputs.rows
    column = None if rows is None else rows.column(item.column)
    if column is None or column.minimum is None or column.maximum is None:
        return None
    return column.minimum, column.maximum
