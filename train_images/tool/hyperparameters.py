"""Hyperparameters, and a strategy's parameters, as a person types them; the former held to what the manifest declares. Pure."""

import json
from collections.abc import Iterable

from policies.errors import RefusedError, UsageError
from policies.manifest import TrainManifest
from policies.order import HyperparameterValue
from policies.refusals import RefusalCode
from policies.strategies import STRATEGIES, StrategyName, parameters_of


def choose(manifest: TrainManifest, settings: Iterable[str]) -> dict[str, HyperparameterValue]:
    """Return every hyperparameter of a train: its default, or what was set.

    Args:
        manifest: the train's.
        settings: ``name=value`` each.

    Raises:
        UsageError: one is not of that form, or stands twice.
        RefusedError: the train has no such hyperparameter, or not of this type or range.
    """
    given = dict(_split(manifest, list(settings)))
    chosen = {name: given.get(name, spec.default) for name, spec in manifest.hyperparameters.items()}
    for name, value in chosen.items():
        if problem := manifest.hyperparameters[name].problem_with(value):
            raise RefusedError(RefusalCode.ORDER_CONFIG, f"{name} {problem} (train.yaml)")
    return chosen


def _split(manifest: TrainManifest, settings: list[str]) -> Iterable[tuple[str, HyperparameterValue]]:
    seen: set[str] = set()
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals or not name or name in seen:
            raise UsageError(f"--set {text}: write each once, as name=value, for example learning_rate=0.01")
        seen.add(name)
        spec = manifest.hyperparameters.get(name)
        if spec is None:
            known = ", ".join(manifest.hyperparameters) or "none"
            raise RefusedError(
                RefusalCode.ORDER_CONFIG,
                f"the train has no hyperparameter {name}",
                hint=f"It has: {known}.",
            )
        yield name, _value(name, value, spec.type)


def _value(name: str, text: str, kind: str) -> HyperparameterValue:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if kind == "float" and type(value) is int:
        return float(value)
    if isinstance(value, bool | int | float):
        return value
    raise UsageError(f"--set {name}={text}: is not a number, true or false")


def choose_parameters(name: StrategyName, settings: Iterable[str]) -> dict[str, int | float]:
    """Return every parameter of a strategy: its default, or what was set. Whether the policy grants it is the order's rules' to say.

    Args:
        name: the strategy.
        settings: ``name=value`` each; names as in Flower, with hyphens or underscores.

    Raises:
        UsageError: one is not of that form, stands twice, or is none of the strategy's.
    """
    given: dict[str, int | float] = {}
    known = STRATEGIES[name].parameters
    for text in settings:
        key, equals, value = text.partition("=")
        key = key.replace("-", "_")
        if not equals or key in given:
            raise UsageError(
                f"--strategy-set {text}: write each once, as name=value, for example server_momentum=0.9"
            )
        if key not in known:
            raise UsageError(f"{name} has no parameter {key}", hint=f"It has: {', '.join(known) or 'none'}.")
        found = _value(key, value, "float" if isinstance(known[key].default, float) else "int")
        if isinstance(found, bool):
            raise UsageError(f"--strategy-set {text}: is not a number")
        given[key] = found
    return parameters_of(name, given)


def strategy_named(text: str) -> StrategyName:
    """Return a strategy by its name.

    Raises:
        UsageError: there is none of that name.
    """
    for name in STRATEGIES:
        if text == name:
            return name
    raise UsageError(f"there is no strategy {text}", hint=f"There are: {', '.join(STRATEGIES)}.")
