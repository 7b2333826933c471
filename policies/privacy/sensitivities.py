"""How far one patient moves a metric or a table, and so how wide its noise is: what to expect of a result before anybody is charged.

Stations use the same on their grids, rounded up to whole steps (`station.egress.privacy.mechanisms`); a test holds both to
each other. Pure.
"""

import math
from typing import Final

from policies.manifest import TrainManifest
from policies.policy import DifferentialPrivacy
from policies.privacy.costs import Query, QueryKind

SHARE_OF_NORM: Final = 0.99
"""Of the clipping norm: to what an update is scaled, so that rounding onto the grid has room."""


def sensitivity_of(query: Query, manifest: TrainManifest) -> tuple[float, float] | None:
    """Return how far replacing one patient moves a metric or table (L2), and the most that one patient adds to one of its numbers.

    Args:
        query: of the manifest's outputs.
        manifest: the train's.

    Returns:
        Both in the output's own unit; None for an update, whose sensitivity is twice the policy's clipping norm, and for what
        the manifest does not declare.
    """
    outputs = manifest.outputs
    if query.kind is QueryKind.METRIC:
        metric = next((item for item in outputs.metrics if item.key == query.key), None)
        return None if metric is None else (metric.maximum - metric.minimum, metric.maximum - metric.minimum)
    if query.kind in {QueryKind.COUNT, QueryKind.QUANTILES, QueryKind.SUM_PATIENTS}:
        return math.sqrt(2), 1.0
    item = next((item for item in outputs.aggregates if item.key == query.key), None)
    column = None if item is None or outputs.rows is None else outputs.rows.column(item.column)
    if column is None or column.minimum is None or column.maximum is None:
        return None
    largest = max(abs(column.minimum), abs(column.maximum))
    if query.kind is QueryKind.SUM_OF_SQUARES:
        return math.sqrt(2) * largest**2, largest**2
    return max(math.sqrt(2) * largest, column.maximum - column.minimum), largest


def spread_of(
    privacy: DifferentialPrivacy, query: Query, manifest: TrainManifest
) -> tuple[float, float] | None:
    """Return the standard deviation of the noise on each number of a metric or table, and the most that one patient adds to it.

    The mean over n stations or rounds of a metric has it divided by the root of n; a table summed over n stations has it times
    the root of n, on n times as many patients.
    """
    found = sensitivity_of(query, manifest)
    return None if found is None else (privacy.noise_multiplier * found[0], found[1])
