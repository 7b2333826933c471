"""May this order combine updates as it says? The strategy's part of `order_rules`: documents in, reasons out."""

from policies.manifest import PROXIMAL_MU, TrainManifest
from policies.order import RunOrder
from policies.policy import Policy
from policies.refusals import Reason, RefusalCode
from policies.strategies import fewest_updates, parameter_problems


def strategy_reasons(order: RunOrder, policy: Policy) -> list[Reason]:
    """Return every way in which an order's strategy leaves the policy, or makes no sense; empty where it may.

    1. The policy grants it.
    2. Each parameter is one that it has, in the policy's range; without a range, at its default.
    3. A round has as many updates as it takes (`fewest_updates`).
    4. FedProx has its `proximal-mu`, above 0.
    """
    strategy = order.strategy
    # 1
    if strategy.name not in policy.runs.strategies:
        return [Reason(RefusalCode.ORDER_BEYOND_POLICY, f"strategy {strategy.name} is not granted")]
    # 2
    ranges = policy.runs.strategy_parameters.get(strategy.name, {})
    if problems := parameter_problems(strategy.name, strategy.parameters, ranges):
        return [Reason(RefusalCode.ORDER_BEYOND_POLICY, problem) for problem in problems]
    found = []
    # 3
    least = fewest_updates(strategy.name, strategy.parameters)
    if order.minimum_stations < least:
        detail = f"{strategy.name} with these parameters takes {least} stations or more (minimum_stations)"
        found.append(Reason(RefusalCode.ORDER_STRATEGY, detail))
    # 4
    if strategy.name == "FedProx" and not _is_positive(order.hyperparameters.get(PROXIMAL_MU)):
        found.append(Reason(RefusalCode.ORDER_STRATEGY, f"FedProx takes {PROXIMAL_MU} above 0"))
    return found


def strategy_manifest_reasons(order: RunOrder, manifest: TrainManifest) -> list[Reason]:
    """Return why the train cannot do its part of the order's strategy; empty where it can."""
    if order.strategy.name != "FedProx" or PROXIMAL_MU in manifest.hyperparameters:
        return []
    return [Reason(RefusalCode.ORDER_STRATEGY, f"the train has no hyperparameter {PROXIMAL_MU}")]


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
