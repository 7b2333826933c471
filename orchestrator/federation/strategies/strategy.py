"""The strategy of one order: which updates it keeps, what becomes of each number, and whose integers are taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.federation.strategies.elementwise import Rule, make_rule
from orchestrator.federation.strategies.selection import select
from orchestrator.federation.strategies.update import TooFewUpdatesError, Update
from policies.errors import UsageError
from policies.order import StrategyChoice
from policies.strategies import (
    STRATEGIES,
    ParameterRange,
    fewest_updates,
    parameter_problems,
    parameters_of,
)


@dataclass(frozen=True, slots=True)
class Strategy:
    """How an order's updates are combined.

    Attributes:
        choice: the order's, with every parameter.
        rule: what becomes of each number of a parameter.
        buffers: what becomes of each number of a float buffer: as `rule` where that keeps nothing, else the mean. A step of
            an optimiser may take a BatchNorm's variance below zero, of which no model comes back.
        integers: whose integers are taken: the heaviest station's, or the middle of all, which few hostile ones cannot choose.
    """

    choice: StrategyChoice
    rule: Rule
    buffers: Rule
    integers: Literal["heaviest", "middle"]

    def select(self, updates: Sequence[Update]) -> list[Update]:
        """Return the updates that are combined, by the stations' names.

        Raises:
            TooFewUpdatesError: fewer than the strategy takes.
            NotFiniteError: Krum compares them, and one is not finite.
        """
        ordered = sorted(updates, key=lambda update: update.station)
        parameters = self.choice.parameters
        least = fewest_updates(self.choice.name, parameters)
        if len(ordered) < least:
            raise TooFewUpdatesError(f"{self.choice.name} takes {least} updates")
        if self.choice.name != "Krum":
            return ordered
        return select(ordered, int(parameters["num_malicious_nodes"]), int(parameters["num_nodes_to_select"]))


def make_strategy(choice: StrategyChoice) -> Strategy:
    """The strategy that an order names. What policies grant is the order rules' matter; here it must only make sense.

    Raises:
        UsageError: it combines nothing, or a parameter is none that it has.
    """
    complete = StrategyChoice(name=choice.name, parameters=parameters_of(choice.name, choice.parameters))
    any_value = {
        key: ParameterRange(minimum=each.minimum, maximum=each.maximum)
        for key, each in STRATEGIES[choice.name].parameters.items()
    }
    if problems := parameter_problems(choice.name, choice.parameters, any_value):
        raise UsageError("; ".join(problems))
    rule = make_rule(complete.name, complete.parameters)
    buffers = make_rule("FedAvg", {}) if rule.moments or complete.name == "FedAvgM" else rule
    robust = complete.name in {"FedMedian", "FedTrimmedAvg"}
    return Strategy(complete, rule, buffers, "middle" if robust else "heaviest")
