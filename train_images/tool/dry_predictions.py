"""The predictions of a dry run: what the train marks and measures in images of patients who do not exist.

Held to its manifest by a station's own code; no DICOM is made of it. A hospital keeps what passes, and leaves out what does not.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from policies.manifest import TrainManifest
from policies.order import HyperparameterValue
from policies.splits import Split
from station.cohorts import FrozenCohort
from station.predictions.judging import Judged, arrays_limit, judge, shape_of
from station.sandbox.session import TrainSession
from station.sandbox.spec import ReplyLimits, TrainFailure, TrainReply, TrainRequest

MOST_CASES: Final = 8
"""A train that answers for so many answers for more; a hospital asks about each of its cases."""
_HEAD_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class DryPredictions:
    """What came of asking.

    Attributes:
        asked: about so many cases.
        kept: so many answers a hospital would keep.
        problems: why it would not keep the others, with how many.
        marked: by prediction and segment, in how many cases a voxel was marked.
        measured: by name, the smallest and the largest.
        seconds: of the slowest case.
    """

    asked: int
    kept: int
    problems: Mapping[str, int] = field(default_factory=dict)
    marked: Mapping[str, int] = field(default_factory=dict)
    measured: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class DryQuestion:
    """With what a train is asked.

    Attributes:
        round: of the last evaluation.
        weights: that were evaluated.
        arrays_to: where an answer's arrays go.
    """

    round: int
    config: Mapping[str, HyperparameterValue]
    weights: Path | None
    arrays_to: Path


def dry_predictions(
    session: TrainSession, manifest: TrainManifest, cohort: FrozenCohort, asked: DryQuestion
) -> DryPredictions:
    """Ask a warm train about some cases, as a station does after a run.

    Raises:
        StorageError: the disk.
        StateError: the cohort cannot be read.
    """
    predictions = manifest.outputs.predictions
    listed = json.loads((cohort.path / "datalist.json").read_bytes())
    cases = sorted((entry["case"], entry["image"]) for split in Split for entry in listed[split])[:MOST_CASES]
    judged: list[Judged] = []
    problems: Counter[str] = Counter()
    slowest = 0.0
    for case, image in cases:
        shape = shape_of(cohort.path / image)
        reply = session.exchange(
            TrainRequest("predict", asked.round, dict(asked.config), asked.weights, case),
            ReplyLimits(asked.arrays_to, arrays_limit(predictions, shape), _HEAD_BYTES),
            timeout_s=float(manifest.resources.message_timeout_s),
        )
        if isinstance(reply, TrainFailure):
            problems[
                f"it did not answer: {reply.error_code or reply.exit_class.value} {reply.detail}".rstrip()
            ] += 1
            if reply.session_ended:
                break
            continue
        found = _judged(reply, manifest, shape)
        slowest = max(slowest, reply.seconds)
        if isinstance(found, str):
            problems[found] += 1
        else:
            judged.append(found)
    return DryPredictions(
        asked=len(judged) + sum(problems.values()),
        kept=len(judged),
        problems=dict(problems),
        marked=_marked(manifest, judged),
        measured=_measured(judged),
        seconds=round(slowest, 3),
    )


def prediction_lines(found: DryPredictions) -> list[str]:
    """Say it in words."""
    lines = [
        (
            f"Predictions, for the hospital alone, where policy and hospital want them: {found.kept} of {found.asked} cases would be kept, "
            f"at most {found.seconds:.2f} s each"
        )
    ]
    lines += [f"  {name} marked in {cases} of {found.kept}" for name, cases in found.marked.items()]
    lines += [f"  {name} from {low:g} to {high:g}" for name, (low, high) in found.measured.items()]
    lines += [f"  left out, {count}: {problem}" for problem, count in found.problems.items()]
    return lines


def _judged(reply: TrainReply, manifest: TrainManifest, shape: tuple[int, ...]) -> Judged | str:
    try:
        return judge(reply, manifest.outputs.predictions, shape)
    finally:
        if reply.arrays is not None:
            reply.arrays.unlink(missing_ok=True)


def _marked(manifest: TrainManifest, judged: list[Judged]) -> dict[str, int]:
    return {
        f"{prediction.name}: {segment.name}": sum(
            each.marked[prediction.name][place] > 0 for each in judged if prediction.name in each.marked
        )
        for prediction in manifest.outputs.predictions
        for place, segment in enumerate(prediction.segments)
    }


def _measured(judged: list[Judged]) -> dict[str, tuple[float, float]]:
    values: dict[str, list[float]] = {}
    for each in judged:
        for name, value in each.measured.items():
            values.setdefault(name, []).append(value)
    return {name: (min(found), max(found)) for name, found in sorted(values.items())}
