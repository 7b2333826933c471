"""When a pooled value may be told without telling what a single station released.

Whoever is told a mean may be at one of its stations, and takes its own value out. So a mean is told of three stations or more, with
the decimals that single values leave with, and only where what is left still leaves room for the value of each of the others: the
interval that the mean and the metric's range leave it must be wide enough (sliding protection, as for cells of tables). Nothing here
holds against stations that put their own values together, nor against two runs over sets of stations that differ by one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import median
from typing import Final

from policies.outputs import MetricOutput
from policies.withheld import MINIMUM_POOLED, TELLS_ONE, TOO_FEW

MINIMUM_OTHERS: Final = 3
"""Others of whom a spread is shown."""
PROTECTION: Final = 0.01
"""No single value can be worked out to within this share of it, to either side."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """A value over stations.

    Attributes:
        stations: how many released it.
        value: weighted by examples, with the metric's decimals; None where it is not told.
        code: why not: a key of `policies.withheld.WORDS`.
    """

    stations: int
    value: float | None
    code: str = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """The others of a station, without their names."""

    others: int
    lowest: float
    highest: float
    median: float | None


def pool(values: Mapping[str, float], examples: Mapping[str, int], metric: MetricOutput) -> Pooled:
    """Return the mean of what stations released, where it may be told.

    Args:
        values: by station.
        examples: by station: the weights of the mean.
        metric: its decimals and range, as the policy narrows them.
    """
    if len(values) < MINIMUM_POOLED:
        return Pooled(len(values), None, TOO_FEW)
    weights = {name: float(examples.get(name, 0)) or 1.0 for name in values}
    total, mass = _sums(values, weights)
    bounds = (float(metric.minimum), float(metric.maximum))
    for insider in values:
        rest = {name: weights[name] for name in values if name != insider}
        left = total - weights[insider] * values[insider]
        if not _leaves_room(left, rest.values(), bounds, metric):
            return Pooled(len(values), None, TELLS_ONE)
    return Pooled(len(values), _told(total / mass, metric))


def spread(
    values: Mapping[str, float], examples: Mapping[str, int], station: str, metric: MetricOutput
) -> Spread | None:
    """Return the lowest, the highest and, of four or more, the middle value of a station's others; None where it may not be told.

    The report that shows it also shows the mean over all: both together must leave room for each other station's value.
    """
    others = {name: value for name, value in values.items() if name != station}
    if len(others) < MINIMUM_OTHERS or pool(values, examples, metric).value is None:
        return None
    low, high = min(others.values()), max(others.values())
    weights = {name: float(examples.get(name, 0)) or 1.0 for name in others}
    left, mass = _sums(others, weights)
    if not _leaves_room(left, weights.values(), (low, high), metric):
        return None
    if len(others) == MINIMUM_OTHERS and not _unattributed(
        low, high, left / mass, list(weights.values()), metric
    ):
        return None
    middle = _told(median(others.values()), metric) if len(others) > MINIMUM_OTHERS else None
    return Spread(len(others), low, high, middle)


def _sums(values: Mapping[str, float], weights: Mapping[str, float]) -> tuple[float, float]:
    return math.fsum(weights[name] * value for name, value in values.items()), math.fsum(weights.values())


def _told(value: float, metric: MetricOutput) -> float:
    return round(value, metric.decimals)


def _width(mean: float, metric: MetricOutput) -> float:
    """How wide what is left for a single value has to be."""
    return max(2 * PROTECTION * abs(mean), 2 * 10.0**-metric.decimals)


def _leaves_room(
    total: float, weights: Iterable[float], bounds: tuple[float, float], metric: MetricOutput
) -> bool:
    """Whether a weighted sum of values within bounds leaves each of them an interval; the heaviest has the narrowest."""
    each = list(weights)
    mass, heaviest = math.fsum(each), max(each)
    rest = mass - heaviest
    low = max(bounds[0], (total - bounds[1] * rest) / heaviest)
    high = min(bounds[1], (total - bounds[0] * rest) / heaviest)
    return high - low >= _width(total / mass, metric) * (1 - 1e-9)


def _unattributed(
    low: float, high: float, mean: float, weights: Sequence[float], metric: MetricOutput
) -> bool:
    """Whether of three others nobody is pinned down by lowest, highest and mean, whoever of them is which."""
    candidates: list[list[float]] = [[], [], []]
    slack = 10.0**-metric.decimals
    for lowest, highest, middle in permutations(range(MINIMUM_OTHERS)):
        found = (mean * math.fsum(weights) - weights[lowest] * low - weights[highest] * high) / weights[
            middle
        ]
        if low - slack <= found <= high + slack:
            for place, value in ((lowest, low), (highest, high), (middle, found)):
                candidates[place].append(value)
    return all(each and max(each) - min(each) >= _width(mean, metric) for each in candidates)
