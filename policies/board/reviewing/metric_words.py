"""A train's metrics in plain words: numbers that it states itself, which nothing at a station can check.

Describes; decides nothing.
"""

from typing import Final

from policies.manifest import TrainManifest
from policies.outputs import MetricOutput
from policies.policy import ReleaseRules

USUAL_DECIMALS: Final = 4
"""A figure about many patients seldom means anything beyond so many."""


def metric_line(metric: MetricOutput) -> str:
    """Say what a metric may be, and whose word it is."""
    decimals = "" if metric.type == "int" else f", {metric.decimals} decimals"
    return (
        f"{metric.key} ({metric.stage}): {metric.type} from {metric.minimum:g} to {metric.maximum:g}{decimals}, "
        f"on {metric.split} patients{'' if metric.required else ', optional'}; stated by the train: nothing at a station checks that it is "
        "not one patient's"
    )


def metric_attention(manifest: TrainManifest, rules: ReleaseRules | None = None) -> list[str]:
    """Say of which of the metrics that may leave the form says more than a figure about many patients needs.

    Args:
        manifest: the train's.
        rules: the policy's; None for the train by itself.
    """
    metrics = manifest.outputs.metrics
    if rules is not None:
        metrics = tuple(rules.narrowed(metric) for metric in metrics if metric.key in rules.metrics)
    return [
        (
            f"{metric.key} ({metric.stage}) leaves with {metric.decimals} decimals: more than {USUAL_DECIMALS} have room for one patient's "
            "value. A policy may have fewer (release.metric_decimals)."
        )
        for metric in metrics
        if metric.type == "float" and metric.decimals > USUAL_DECIMALS
    ] + [
        (
            f"{metric.key} ({metric.stage}) is a whole number, so in effect a count that the train states: no minimum count of patients is "
            "asked of what it counts. Aggregates are counted by the station."
        )
        for metric in metrics
        if metric.type == "int"
    ]
