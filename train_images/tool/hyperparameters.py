"""Hyperparameters as a person types them, held to what the manifest declares. Pure."""

import json
from collections.abc import Iterable

from policies.errors import RefusedError, UsageError
from policies.manifest import TrainManifest
from policies.order import HyperparameterValue
from policies.refusals import RefusalCode


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
