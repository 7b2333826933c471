"""The aggregation strategies that a policy may grant: Flower's, by Flower's names, each with what may be set of it.

A closed list. A policy grants a strategy by its name (`runs.strategies`) and its parameters by range
(`runs.strategy_parameters`); a parameter without a range stays at its default. Names and defaults are those of
`flwr.serverapp.strategy` 1.41.0; `eta_l` of Flower's adaptive strategies is not here, because their sums do not use it,
and Flower's `MultiKrum` is `Krum` with `num_nodes_to_select` above 1. `FedProx` is `FedAvg` at the orchestrator: its one number is the
train's own hyperparameter `proximal-mu`, which reaches the station in the signed order like any other.

Pure: numbers in, sentences out. What a strategy computes is `orchestrator.federation.strategies`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Final, Literal, get_args

from pydantic import model_validator

from policies.documents import StrictModel
from policies.manifest import PROXIMAL_MU, HyperparameterSpec
from policies.withheld import MINIMUM_POOLED

StrategyName = Literal[
    "FedAvg",
    "FedProx",
    "FedAdam",
    "FedYogi",
    "FedAdagrad",
    "FedAvgM",
    "FedMedian",
    "FedTrimmedAvg",
    "Krum",
    "none",
]
ParameterValue = int | float


@dataclass(frozen=True, slots=True)
class Parameter:
    """One number that a strategy takes.

    Attributes:
        default: Flower's; its type is the parameter's.
        minimum: the smallest value that any policy may grant.
        maximum: the largest.
    """

    default: ParameterValue
    minimum: ParameterValue
    maximum: ParameterValue

    def problem_with(self, value: object) -> str | None:
        """Return why `value` is none for this parameter, or None."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "is not a number"
        if isinstance(self.default, int) and not isinstance(value, int):
            return "is not a whole number"
        if not self.minimum <= value <= self.maximum:
            return f"is not from {self.minimum:g} to {self.maximum:g}"
        return None


@dataclass(frozen=True, slots=True)
class StrategySpec:
    """One strategy.

    Attributes:
        words: what it does, for whoever reads or signs a policy.
        needs_single_updates: whether a sum of all stations' updates is not enough for it.
        parameters: what may be set, by Flower's names.
    """

    words: str
    needs_single_updates: bool = False
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


_ETA: Final = Parameter(0.1, 0.00001, 10.0)
_TAU: Final = Parameter(0.001, 0.000000001, 1.0)
_MOMENTS: Final = {"beta_1": Parameter(0.9, 0.0, 0.999), "beta_2": Parameter(0.99, 0.0, 0.9999)}

STRATEGIES: Final[Mapping[StrategyName, StrategySpec]] = {
    "FedAvg": StrategySpec("the mean of the stations' weights, by their examples"),
    "FedProx": StrategySpec(
        f"the same mean, of trainings that the hyperparameter {PROXIMAL_MU} holds near the common weights"
    ),
    "FedAdam": StrategySpec(
        "the mean, as one step of Adam: steps are scaled by how large and how steady they were in the rounds before",
        parameters={"eta": _ETA, **_MOMENTS, "tau": _TAU},
    ),
    "FedYogi": StrategySpec(
        "the mean, as one step of Yogi: Adam whose scale grows less abruptly",
        parameters={"eta": Parameter(0.01, 0.00001, 10.0), **_MOMENTS, "tau": _TAU},
    ),
    "FedAdagrad": StrategySpec(
        "the mean, as one step of Adagrad: steps shrink as their sum over the rounds grows",
        parameters={"eta": _ETA, "tau": _TAU},
    ),
    "FedAvgM": StrategySpec(
        "the mean, with momentum from the rounds before",
        parameters={
            "server_learning_rate": Parameter(1.0, 0.0001, 10.0),
            "server_momentum": Parameter(0.0, 0.0, 0.999),
        },
    ),
    "FedMedian": StrategySpec(
        "the median of each weight: fewer than half of the stations cannot push it beyond what the others sent",
        needs_single_updates=True,
    ),
    "FedTrimmedAvg": StrategySpec(
        "the mean of each weight without its smallest and its largest values, the share beta of the stations at either end",
        needs_single_updates=True,
        parameters={"beta": Parameter(0.2, 0.01, 0.49)},
    ),
    "Krum": StrategySpec(
        "the updates nearest to the others (num_nodes_to_select of them) and nothing of the rest: as many as num_malicious_nodes hostile stations are left out",
        needs_single_updates=True,
        parameters={
            "num_malicious_nodes": Parameter(0, 0, 100),
            "num_nodes_to_select": Parameter(1, 1, 1000),
        },
    ),
    "none": StrategySpec("nothing is combined", needs_single_updates=True),
}
if set(STRATEGIES) != set(get_args(StrategyName)):  # pragma: no cover - a mistake in this file
    raise TypeError("a strategy is named that the list does not describe")


class ParameterRange(StrictModel):
    """The values of one strategy's parameter that an order may choose."""

    minimum: ParameterValue
    maximum: ParameterValue

    @model_validator(mode="after")
    def _consistent(self) -> "ParameterRange":
        if self.minimum > self.maximum:
            raise ValueError("minimum is above maximum")
        return self


Ranges = Mapping[StrategyName, Mapping[str, ParameterRange]]

_ALONE: Final = (
    "a round's weights may be those of {kept} of the hospitals and nobody else, so whoever is given the weights, the requester and "
    "every hospital, reads what those sent"
)


def parameters_of(name: StrategyName, chosen: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
    """Return every parameter of a strategy: as chosen, else its default.

    >>> parameters_of("FedAdagrad", {"eta": 0.5})
    {'eta': 0.5, 'tau': 0.001}
    """
    return {key: chosen.get(key, each.default) for key, each in STRATEGIES[name].parameters.items()}


def fewest_updates(name: StrategyName, parameters: Mapping[str, ParameterValue]) -> int:
    """Return with how many updates a strategy means what it says, at least.

    A median of two is their mean. A trimmed mean cuts `int(beta * n)` at either end, and with none cut it protects from nobody.
    Krum tolerates f hostile of n >= 2f + 3 (Blanchard et al. 2017), and its best n - f - 2 may be averaged: to keep three of them
    takes five.

    >>> fewest_updates("Krum", {"num_malicious_nodes": 2}), fewest_updates("FedTrimmedAvg", {})
    (7, 5)
    """
    values = parameters_of(name, parameters)
    if name == "FedMedian":
        return 3
    if name == "FedTrimmedAvg":
        updates = 3
        while int(values["beta"] * updates) < 1:
            updates += 1
        return updates
    if name == "Krum":
        hostile, kept = int(values["num_malicious_nodes"]), int(values["num_nodes_to_select"])
        return max(2 * hostile + 3, hostile + 2 + kept)
    return 1


def parameter_problems(
    name: StrategyName, chosen: Mapping[str, object], ranges: Mapping[str, ParameterRange]
) -> list[str]:
    """Return why an order may not choose these parameters; empty where it may. What is left out is at its default.

    Args:
        name: the strategy.
        chosen: the order's.
        ranges: the policy's, for this strategy.
    """
    known = STRATEGIES[name].parameters
    found = [f"{name} has no parameter {key}" for key in chosen if key not in known]
    for key, parameter in known.items():
        value = chosen.get(key, parameter.default)
        granted = ranges.get(key)
        if problem := parameter.problem_with(value):
            found.append(f"{name}: {key} {problem}")
        elif granted is None and value != parameter.default:
            found.append(f"{name}: the policy grants no {key} but {parameter.default:g}")
        elif granted is not None and not granted.minimum <= float(str(value)) <= granted.maximum:
            found.append(
                f"{name}: {key} {value} is not from {granted.minimum:g} to {granted.maximum:g} (policy)"
            )
    return found


def grant_problems(
    strategies: Iterable[StrategyName],
    ranges: Ranges,
    minimum_stations: int,
    hyperparameters: Mapping[str, HyperparameterSpec],
) -> list[str]:
    """Return what in a policy's grant of strategies cannot hold together; each is a sentence."""
    names = list(strategies)
    found = ["runs.strategies names a strategy twice"] if len(set(names)) != len(names) else []
    found += [
        f"runs.strategy_parameters is about {name}, which is not granted"
        for name in ranges
        if name not in names
    ]
    for name, granted in ranges.items():
        for key, limits in granted.items():
            parameter = STRATEGIES[name].parameters.get(key)
            if parameter is None:
                found.append(f"runs.strategy_parameters: {name} has no parameter {key}")
                continue
            found += [
                f"runs.strategy_parameters: {name}: {key} {problem}"
                for end in dict.fromkeys((limits.minimum, limits.maximum))
                if (problem := parameter.problem_with(end))
            ]
    if found:
        return found
    for name in names:
        least = fewest_updates(name, mildest(name, ranges.get(name, {})))
        if least > minimum_stations:
            found.append(
                f"{name} takes {least} stations or more, and runs.minimum_stations is {minimum_stations}"
            )
    mu = hyperparameters.get(PROXIMAL_MU)
    if "FedProx" in names and (mu is None or mu.type != "float" or mu.maximum is None or mu.maximum <= 0):
        found.append(f"FedProx takes a float {PROXIMAL_MU} above 0, and runs.hyperparameters grants none")
    return found


def strategy_in_words(name: StrategyName, ranges: Mapping[str, ParameterRange]) -> str:
    """Say what a granted strategy does, and what an order may set of it.

    >>> strategy_in_words("FedAvgM", {"server_momentum": ParameterRange(minimum=0.5, maximum=0.9)})
    'FedAvgM: the mean, with momentum from the rounds before; server_learning_rate 1, server_momentum 0.5 to 0.9'
    """
    told = []
    for key, parameter in STRATEGIES[name].parameters.items():
        granted = ranges.get(key)
        if granted is None or granted.minimum == granted.maximum:
            told.append(f"{key} {parameter.default if granted is None else granted.minimum:g}")
        else:
            told.append(f"{key} {granted.minimum:g} to {granted.maximum:g}")
    kept = fewest_kept(name, ranges)
    alone = "" if kept is None or kept >= MINIMUM_POOLED else f"; {_ALONE.format(kept=kept)}"
    return f"{name}: {STRATEGIES[name].words}" + (f"; {', '.join(told)}" if told else "") + alone


def fewest_kept(name: StrategyName, ranges: Mapping[str, ParameterRange]) -> int | None:
    """Return of how few whole updates a round's weights may be made, as a policy grants it; None where all of them count.

    >>> fewest_kept("Krum", {}), fewest_kept("FedAvg", {})
    (1, None)
    """
    if name != "Krum":
        return None
    key = "num_nodes_to_select"
    return int(ranges[key].minimum if key in ranges else STRATEGIES[name].parameters[key].default)


def mildest(name: StrategyName, ranges: Mapping[str, ParameterRange]) -> dict[str, ParameterValue]:
    """Return parameters within a policy's ranges with which a strategy takes the fewest stations.

    >>> mildest("Krum", {"num_malicious_nodes": ParameterRange(minimum=1, maximum=3)})
    {'num_malicious_nodes': 1, 'num_nodes_to_select': 1}
    """
    return min(_corners(name, ranges), key=lambda corner: fewest_updates(name, corner))


def _corners(name: StrategyName, ranges: Mapping[str, ParameterRange]) -> Iterable[dict[str, ParameterValue]]:
    # How many stations it takes rises or falls with each parameter, so that the least is at an end.
    keys = list(STRATEGIES[name].parameters)
    ends = [
        (STRATEGIES[name].parameters[key].default,)
        if key not in ranges
        else (ranges[key].minimum, ranges[key].maximum)
        for key in keys
    ]
    return (dict(zip(keys, values, strict=True)) for values in product(*ends))
