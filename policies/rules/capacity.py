"""How much could leave: an upper bound, in bits, of what a policy's release rules let a hostile train carry out.

Counts the channel, not the leak: every released number is taken as free for the train to choose. Clipping and noise
narrow the channel and are not counted, so the bound only errs upwards. Pure: documents in, numbers out.
"""

import math
from dataclasses import dataclass

from policies.manifest import AggregateOutput, Interface, MetricOutput, TableOutput, TrainKind, TrainManifest
from policies.policy import Policy
from policies.refusals import RefusalCode
from policies.rows import MAX_PATIENTS, OUTCOME

RADIOGRAPH_PIXELS = 256 * 256
RADIOGRAPH_BITS_PER_PIXEL = 12
RADIOGRAPH_COMPRESSION = 10
BITS_PER_RADIOGRAPH = RADIOGRAPH_PIXELS * RADIOGRAPH_BITS_PER_PIXEL // RADIOGRAPH_COMPRESSION
"""A recognisable chest radiograph: 256 x 256 pixels of 12 bits, compressed 10:1, the ratio at which a radiograph
"retains virtually all the visible quality" (Kajiwara, Comput Methods Programs Biomed 37:343, 1992)."""

_PRECISION_BITS = {"float32": 32, "bfloat16": 16, "float16": 16}
_NUMBER_BITS = 64
_STAGES: dict[TrainKind, tuple[str, ...]] = {
    TrainKind.TRAINING: ("train", "evaluate"),
    TrainKind.EVALUATION: ("evaluate",),
    TrainKind.ANALYSIS: ("analyse",),
}


@dataclass(frozen=True, slots=True)
class CapacityPart:
    """What one output adds to a round.

    Attributes:
        what: in words.
        bits: at most.
    """

    what: str
    bits: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """The upper bound, per station.

    Attributes:
        bits_per_round: one round, all its stages.
        bits_per_run: all rounds of one run.
        bits_in_total: all runs that the policy permits.
        radiographs: of `BITS_PER_RADIOGRAPH` bits each, that fit into one run.
        parts: what a round's bits consist of, before the ceiling on bytes.
    """

    bits_per_round: float
    bits_per_run: float
    bits_in_total: float
    radiographs: float
    parts: tuple[CapacityPart, ...]

    @property
    def radiographs_per_round(self) -> float:
        """Radiographs that fit into one round."""
        return self.bits_per_round / BITS_PER_RADIOGRAPH


def capacity(
    policy: Policy, tensor_elements: int | None = None, manifest: TrainManifest | None = None
) -> Capacity:
    """Bound what one station's releases can carry out under a policy.

    Args:
        policy: its release rules.
        tensor_elements: how many numbers the released tensors hold together; None takes the policy's ceiling on bytes.
        manifest: the train's, for the range and decimals of its metrics and the shape of its tables; without it each
            metric counts 64 bits and a table fills the ceiling.
    """
    ceiling = policy.release.maximum_bytes * 8
    stages = _STAGES[policy.kind]
    per_stage = [_stage_parts(policy, stage, tensor_elements, manifest) for stage in stages]
    bounded = [_bounded(parts, ceiling) for parts in per_stage]
    per_round = sum(bounded)
    per_run = per_round * policy.runs.rounds
    total = min(per_run * policy.runs.runs, max(bounded) * policy.runs.releases)
    parts = tuple(part for stage in per_stage for part in stage)
    return Capacity(per_round, per_run, total, per_run / BITS_PER_RADIOGRAPH, parts)


def _bounded(parts: list[CapacityPart], ceiling: int) -> float:
    return sum(part.bits for part in parts if part.what == _SIGNAL) + min(
        ceiling, sum(part.bits for part in parts if part.what != _SIGNAL)
    )


_SIGNAL = "outcome and duration of a message"


def _stage_parts(
    policy: Policy, stage: str, tensor_elements: int | None, manifest: TrainManifest | None
) -> list[CapacityPart]:
    rules = policy.release
    parts = []
    if stage == "train" and rules.tensors is not None:
        bits = _PRECISION_BITS[rules.tensors.precision]
        elements = _elements(tensor_elements, manifest)
        if elements is None:
            parts.append(CapacityPart("tensors, up to the ceiling on bytes", rules.maximum_bytes * 8))
        else:
            parts.append(CapacityPart(f"{elements:,} tensor elements of {bits} bits", elements * bits))
    if manifest is None:
        parts += [CapacityPart(f"metric {key} ({stage})", _NUMBER_BITS) for key in rules.metrics]
        parts += [CapacityPart(f"table {key} ({stage})", rules.maximum_bytes * 8) for key in rules.tables]
    else:
        metrics = (m for m in manifest.outputs.metrics if m.stage == stage and m.key in rules.metrics)
        tables = (t for t in manifest.outputs.tables if t.stage == stage and t.key in rules.tables)
        parts += [CapacityPart(f"metric {metric.key} ({stage})", _metric_bits(metric)) for metric in metrics]
        parts += [CapacityPart(f"table {table.key} ({stage})", _table_bits(table)) for table in tables]
        if stage == "analyse":
            counted = (item for item in manifest.outputs.aggregates if item.key in rules.tables)
            parts += [
                CapacityPart(f"patients per bin {item.key}", _aggregate_bits(item, manifest, policy))
                for item in counted
            ]
    parts.append(CapacityPart(_SIGNAL, _signal_bits(policy, manifest)))
    return parts


def _elements(given: int | None, manifest: TrainManifest | None) -> int | None:
    if given is not None:
        return given
    if manifest is None or manifest.outputs.tensors is None or not manifest.outputs.tensors.listed:
        return None
    return sum(math.prod(tensor.shape) for tensor in manifest.outputs.tensors.listed)


def _metric_bits(metric: MetricOutput) -> float:
    decimals = metric.decimals if metric.type == "float" else 0
    values = math.floor((metric.maximum - metric.minimum) * 10**decimals) + 1
    return min(float(_NUMBER_BITS), math.log2(values + (0 if metric.required else 1)))


def _table_bits(table: TableOutput) -> float:
    return float(table.rows * len(table.columns) * _NUMBER_BITS)


def _aggregate_bits(item: AggregateOutput, manifest: TrainManifest, policy: Policy) -> float:
    """Return what the station's own counts can say: each cell is hidden, or one of the multiples that are told."""
    cells = len(manifest.aggregate_lines(item)) * len(manifest.aggregate_columns(item))
    return cells * math.log2(MAX_PATIENTS // policy.release.count_rounding + 2)


def _signal_bits(policy: Policy, manifest: TrainManifest | None) -> float:
    """Return what a train can say by how long it takes and how it ends."""
    quantum = policy.release.timing_quantum_s
    timeout = (
        manifest.resources.message_timeout_s if manifest is not None else policy.resources.run_hours * 3600
    )
    duration = _NUMBER_BITS if quantum == 0 else math.log2(timeout / quantum + 1)
    granted = set(policy.release.error_codes)
    codes = len(granted if manifest is None else granted & set(manifest.error_codes))
    # A release, a granted code, or one of the closed list: which of those a train can bring about is not relied upon.
    return duration + math.log2(1 + codes + len(RefusalCode))


def in_words(found: Capacity) -> str:
    """Say the bound to a person, one sentence.

    >>> in_words(Capacity(2.5e8, 1.25e9, 1.25e9, 15895.2, ()))
    'at most 250 Mbit per station and round (about 3,200 radiographs), 1.25 Gbit per run (about 16,000 radiographs)'
    """
    return (
        f"at most {bits_in_words(found.bits_per_round)} per station and round "
        f"({_about(found.radiographs_per_round)}), {bits_in_words(found.bits_per_run)} per run "
        f"({_about(found.radiographs)})"
    )


def bits_in_words(bits: float) -> str:
    """Write a number of bits with its unit.

    >>> [bits_in_words(n) for n in (80, 4_200, 999_600, 250e6)]
    ['80 bits', '4.2 kbit', '1 Mbit', '250 Mbit']
    """
    for unit, size in (("Tbit", 1e12), ("Gbit", 1e9), ("Mbit", 1e6), ("kbit", 1e3)):
        # As it will be written: what rounds up to a thousand of the smaller unit is one of this.
        if float(f"{bits / size:.3g}") >= 1:
            return f"{bits / size:.3g} {unit}"
    return f"{math.ceil(bits)} bits"


def _about(radiographs: float) -> str:
    if radiographs < 1:
        return "less than one radiograph"
    digits = max(0, math.floor(math.log10(radiographs)) - 1)
    return f"about {round(radiographs, -digits):,.0f} radiographs"


def _several_tables(policy: Policy, manifest: TrainManifest) -> bool:
    """Whether two tables count the same rows; how containers ended is not of rows."""
    told = [
        item.split
        for item in manifest.outputs.aggregates
        if item.key in policy.release.tables and item.column != OUTCOME
    ]
    return len(set(told)) < len(told)


def trust_in_words(policy: Policy, manifest: TrainManifest | None = None) -> str:
    """Say whom the capacity leaves to trust; the train's manifest, where it is at hand, says how it is run."""
    if manifest is not None and manifest.interface is Interface.MAP:
        counted = (
            "The train sees one patient at a time and counts nobody: each station counts its rows. That no small number of "
            "patients shows "
        )
        if not _several_tables(policy, manifest):
            return f"{counted}does not depend on reading the train's code; what its figures mean does."
        return counted + (
            "in a table does not depend on reading the train's code; that none shows in the difference of two tables does: no two "
            "columns of its rows may hold the same finding, since counts of one finding between other limits differ by single patients."
        )
    if policy.release.tensors is None:
        return "Whoever wrote and whoever reviewed the train's code are trusted not to code data into its numbers."
    trusted = ["whoever wrote and whoever reviewed the train's code, not to code images into the weights"]
    if not policy.release.secure_aggregation:
        if policy.release.differential_privacy is None:
            trusted.append("the orchestrator, which sees every hospital's own update, not to study it")
        else:
            trusted.append(
                "the orchestrator, which sees every hospital's own update, blurred by the station's noise"
            )
    return "This leaves to trust: " + "; ".join(trusted) + "."
