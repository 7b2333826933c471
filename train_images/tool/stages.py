"""What each round asks of a train, as far as its manifest says it answers. Pure."""

from policies.manifest import TrainKind, TrainManifest
from policies.order import Stage


def stages_of(manifest: TrainManifest) -> tuple[Stage, ...]:
    """Return the stages of a round, in order."""
    if manifest.kind is TrainKind.EVALUATION:
        return ("evaluate",)
    if manifest.kind is TrainKind.ANALYSIS:
        return ("analyse",)
    answered = {metric.stage for metric in manifest.outputs.metrics}
    return ("train", "evaluate") if "evaluate" in answered else ("train",)
