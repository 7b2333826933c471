"""How much could leave: an upper bound, in bits, of what a policy's release rules let a hostile train carry out.

Counts the channel, not the leak: every released number is taken as free for the train to choose, as far as the rules let it.
Precision, ranges, clipping, rounding, hidden counts and the station's noise narrow the channel (`policies.rules.channels`).
Board, researcher, station and orchestrator compute the same; a station enters it with each release. Pure: documents in, numbers out.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from policies.aggregates import AggregateOutput
from policies.errors import WireError
from policies.manifest import Interface, TrainKind, TrainManifest
from policies.outputs import DType, MetricOutput, TensorOutputs
from policies.policy import Policy, ReleaseRules, TensorRules
from policies.refusals import RefusalCode
from policies.rows import MAX_PATIENTS, OUTCOME
from policies.rules.channels import (
    NUMBER_BITS,
    clipped_bits,
    floats_bits,
    metric_bits,
    noisy_bits,
    noisy_metric_bits,
    table_bits,
    whole_bits,
)
from policies.rules.privacy_words import not_covered
from policies.wire.arrays import TensorShape
from policies.wire.releases import ReleaseTensor, TensorRole, release_tensors

RADIOGRAPH_PIXELS = 256 * 256
RADIOGRAPH_BITS_PER_PIXEL = 12
RADIOGRAPH_COMPRESSION = 10
BITS_PER_RADIOGRAPH = RADIOGRAPH_PIXELS * RADIOGRAPH_BITS_PER_PIXEL // RADIOGRAPH_COMPRESSION
"""A recognisable chest radiograph: 256 x 256 pixels of 12 bits, compressed 10:1, the ratio at which a radiograph
"retains virtually all the visible quality" (Kajiwara, Comput Methods Programs Biomed 37:343, 1992)."""

FAILED_MESSAGES = 3
"""So many failed messages end a run at a station, unless the hospital sets another number: each can be told from the others."""

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
        bits_per_run: all rounds of one run, and the messages in which it fails.
        bits_in_total: all runs that the policy permits.
        radiographs: of `BITS_PER_RADIOGRAPH` bits each, that fit into one run.
        parts: what a round's bits consist of, before the ceiling on bytes.
        without_noise: one round, were there no noise; None where the policy has none.
    """

    bits_per_round: float
    bits_per_run: float
    bits_in_total: float
    radiographs: float
    parts: tuple[CapacityPart, ...]
    without_noise: float | None = None

    @property
    def radiographs_per_round(self) -> float:
        """Radiographs that fit into one round."""
        return self.bits_per_round / BITS_PER_RADIOGRAPH


def capacity(
    policy: Policy, manifest: TrainManifest | None = None, weights: Sequence[TensorShape] | None = None
) -> Capacity:
    """Bound what one station's releases can carry out under a policy.

    Args:
        policy: its release rules, its numbers of runs, rounds and releases.
        manifest: the train's, for the range and decimals of its metrics and the shape of its tables; without it each
            metric counts 64 bits and a table fills the ceiling.
        weights: the tensors that training starts from; None takes the manifest's list, or else the policy's ceiling on bytes.
    """
    rules = policy.release
    tensors = tensors_released(rules, manifest, weights)
    stages = _STAGES[policy.kind]
    signal = _signal_bits(rules, _timeout_s(policy, manifest), manifest)
    per_stage = [_stage_parts(rules, stage, tensors, manifest) for stage in stages]
    messages = [_bounded(parts, rules) + signal for parts in per_stage]
    per_round = math.fsum(messages)
    failures = FAILED_MESSAGES * signal
    per_run = per_round * policy.runs.rounds + failures
    total = min(
        per_run * policy.runs.runs, max(messages) * policy.runs.releases + failures * policy.runs.runs
    )
    parts = [part for stage in per_stage for part in stage]
    parts += [CapacityPart(_SIGNAL, signal) for _ in stages]
    plain: float | None = None
    if rules.differential_privacy is not None:
        without = rules.model_copy(update={"differential_privacy": None})
        plain = capacity(policy.model_copy(update={"release": without}), manifest, weights).bits_per_round
    return Capacity(per_round, per_run, total, per_run / BITS_PER_RADIOGRAPH, tuple(parts), plain)


def release_bits(
    rules: ReleaseRules, manifest: TrainManifest, stage: str, tensors: Sequence[ReleaseTensor]
) -> int:
    """Bound what one release of a stage can carry out, its outcome and duration included; whole bits, rounded up.

    Args:
        rules: the policy's.
        manifest: the train's.
        stage: that was asked.
        tensors: exactly those of a training reply, as `policies.wire.releases.release_tensors` says.
    """
    parts = _stage_parts(rules, stage, tuple(tensors), manifest)
    return math.ceil(
        _bounded(parts, rules) + _signal_bits(rules, manifest.resources.message_timeout_s, manifest)
    )


_MEASURES = {"count": "patients per bin", "sum": "sums", "quantiles": "quantiles"}
_SIGNAL = "outcome and duration of a message"


def _bounded(parts: Iterable[CapacityPart], rules: ReleaseRules) -> float:
    return min(rules.maximum_bytes * 8, math.fsum(part.bits for part in parts))


def _timeout_s(policy: Policy, manifest: TrainManifest | None) -> float:
    return policy.resources.run_hours * 3600 if manifest is None else manifest.resources.message_timeout_s


def tensors_released(
    rules: ReleaseRules, manifest: TrainManifest | None, weights: Iterable[TensorShape] | None
) -> tuple[ReleaseTensor, ...] | None:
    """Return what a training release holds; None where that is not known yet, nothing where weights are none that the train starts from."""
    if rules.tensors is None:
        return ()
    outputs = TensorOutputs(layout="same-as-input") if manifest is None else manifest.outputs.tensors
    if outputs is None:
        return ()
    if weights is None:
        if outputs.layout != "listed":
            return None
        weights = [TensorShape(spec.name, spec.dtype, tuple(spec.shape)) for spec in outputs.listed]
    try:
        return release_tensors(outputs, rules.tensors, weights)
    except WireError:
        return ()  # the weights are not the train's: no station releases a difference from them


def _stage_parts(
    rules: ReleaseRules,
    stage: str,
    tensors: tuple[ReleaseTensor, ...] | None,
    manifest: TrainManifest | None,
) -> list[CapacityPart]:
    parts: list[CapacityPart] = []
    if stage == "train" and rules.tensors is not None:
        if tensors is None:
            parts += _unknown_tensors(rules, rules.tensors)
        else:
            parts += _tensor_parts(rules, rules.tensors, tensors, known=manifest is not None)
    if manifest is None:
        parts += [CapacityPart(f"metric {key} ({stage})", NUMBER_BITS) for key in rules.metrics]
        parts += [CapacityPart(f"table {key} ({stage})", rules.maximum_bytes * 8) for key in rules.tables]
        return parts
    metrics = (m for m in manifest.outputs.metrics if m.stage == stage and m.key in rules.metrics)
    parts += [CapacityPart(f"metric {m.key} ({stage})", _metric_bits(m, rules)) for m in metrics]
    # Only trains that are asked one thing have aggregates.
    parts += [
        CapacityPart(f"{_MEASURES[item.measure]} {item.key}", _aggregate_bits(item, manifest, rules))
        for item in manifest.outputs.aggregates
        if item.key in rules.tables
    ]
    return parts


def _unknown_tensors(rules: ReleaseRules, tensors: TensorRules) -> list[CapacityPart]:
    private = rules.differential_privacy
    if private is not None and tensors.float_buffers == tensors.integer_buffers == "withhold":
        return [CapacityPart("tensors, under the station's noise", noisy_bits(private.noise_multiplier))]
    return [CapacityPart("tensors, up to the ceiling on bytes", rules.maximum_bytes * 8)]


def _tensor_parts(
    rules: ReleaseRules, tensors: TensorRules, released: Sequence[ReleaseTensor], *, known: bool
) -> list[CapacityPart]:
    """Return a part for each role; without the manifest (`known`) nobody says which floats are parameters, which are clipped."""
    floats = {role: Counter[DType]() for role in TensorRole}
    whole, whole_elements = 0.0, 0
    for item in released:
        if item.released_dtype is None:
            continue
        if item.role is TensorRole.INTEGER_BUFFER:
            whole += whole_bits(item.reply.dtype, item.reply.elements, tensors.maximum_absolute)
            whole_elements += item.reply.elements
        else:
            floats[item.role][item.released_dtype] += item.reply.elements
    parts = []
    parameters, buffers = floats[TensorRole.PARAMETER], floats[TensorRole.FLOAT_BUFFER]
    if parameters.total():
        bits = floats_bits(parameters, tensors.maximum_absolute)
        words = _of(parameters)
        if tensors.clipping_norm is not None and known:
            bits = clipped_bits(parameters, tensors.clipping_norm, tensors.maximum_absolute)
            words += f", their norm at most {tensors.clipping_norm:g}"
        if rules.differential_privacy is not None:
            bits = min(bits, noisy_bits(rules.differential_privacy.noise_multiplier))
            words += ", under the station's noise"
        parts.append(CapacityPart(f"parameters: {words}", bits))
    if buffers.total():
        bits = floats_bits(buffers, tensors.maximum_absolute)
        parts.append(CapacityPart(f"float buffers: {_of(buffers)}", bits))
    if whole_elements:
        parts.append(CapacityPart(f"integer buffers: {whole_elements:,} numbers", whole))
    return parts


def _of(elements: Counter[DType]) -> str:
    return " and ".join(f"{count:,} {dtype} numbers" for dtype, count in sorted(elements.items()) if count)


def _metric_bits(metric: MetricOutput, rules: ReleaseRules) -> float:
    metric, private = rules.narrowed(metric), rules.differential_privacy
    return metric_bits(metric) if private is None else noisy_metric_bits(metric, private.noise_multiplier)


def _aggregate_bits(item: AggregateOutput, manifest: TrainManifest, rules: ReleaseRules) -> float:
    """Return what the station's own counts, sums and quantiles can say; of their noise nothing is taken off but roundings."""
    told = manifest.aggregate_values(item, rules.count_rounding)
    private = rules.differential_privacy is not None
    if item.measure == "count":
        return table_bits(told[0].cells, MAX_PATIENTS, None if private else rules.count_rounding)
    if item.measure == "sum" and private:
        return float(NUMBER_BITS * sum(part.cells for part in told))
    return math.fsum(part.cells * math.log2(part.values) for part in told)


def _signal_bits(rules: ReleaseRules, timeout_s: float, manifest: TrainManifest | None) -> float:
    """Return what a train can say by how long it takes and how it ends.

    With a quantum the reply says after how many of them it leaves, and leaves then: its train's time-out, and at most as long again for the
    station to look at it, which follows the answer too. Where a charge or a score goes on record first, heads tell those moments too.
    Without a quantum the moment is as fine as clocks are.
    """
    quantum = rules.timing_quantum_s
    moments = max(1, rules.quanta_of("train"))
    duration = moments * (NUMBER_BITS if quantum == 0 else math.log2(2 * math.ceil(timeout_s / quantum) + 1))
    granted = set(rules.error_codes)
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
    ) + (
        ""
        if found.without_noise is None
        else f"; without the station's noise it would be {bits_in_words(found.without_noise)} per round "
        f"({_about(found.without_noise / BITS_PER_RADIOGRAPH)})"
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
    trusted = _trusted(policy, manifest)
    if policy.release.differential_privacy is None:
        return trusted
    return f"{trusted} {not_covered(policy, manifest)}"


def _trusted(policy: Policy, manifest: TrainManifest | None) -> str:
    if manifest is not None and manifest.program is None:
        return "No program runs: each station's own code counts its clinical data, so nobody's code is to be trusted."
    if manifest is not None and manifest.interface is Interface.MAP:
        return _trusted_to_map(policy, manifest)
    if policy.release.tensors is None:
        return "Whoever wrote and whoever reviewed the train's code are trusted not to code data into its numbers."
    numbers = " or into the numbers it states" if policy.release.metrics else ""
    trusted = [
        f"whoever wrote and whoever reviewed the train's code, not to code images into the weights{numbers}"
    ]
    if not policy.release.secure_aggregation:
        if policy.release.differential_privacy is None:
            trusted.append("the orchestrator, which sees every hospital's own update, not to study it")
        else:
            trusted.append(
                "the orchestrator, which sees every hospital's own update, blurred by the station's noise"
            )
    return "This leaves to trust: " + "; ".join(trusted) + "."


def _trusted_to_map(policy: Policy, manifest: TrainManifest) -> str:
    words = (
        "The train sees one patient at a time and counts nobody: each station counts its rows. That no small number of patients shows in "
        "one table of counts does not depend on reading the train's code, but for what a program written for the purpose can signal from "
        "one patient's container to another's on the machine that they share; what its figures mean does."
    )
    if sums := _train_sums(policy, manifest):
        words += (
            f" That none shows in a sum ({', '.join(sums)}) does depend on it: whoever writes the numbers that are added, or says whose "
            "are, can put one patient's value into the low digits of all."
        )
    if _several_tables(policy, manifest):
        words += (
            " That none shows in the difference of two tables does depend on it too: no two columns of its rows may hold the same "
            "finding, since counts of one finding between other limits differ by single patients."
        )
    return words


def _train_sums(policy: Policy, manifest: TrainManifest) -> list[str]:
    """Name the sums in which the train's own columns are added, or say whose values are; under noise low digits say nothing."""
    rows = manifest.outputs.rows if policy.release.differential_privacy is None else None
    own = frozenset() if rows is None else rows.stated
    return [
        item.key
        for item in manifest.outputs.aggregates
        if item.key in policy.release.tables and item.measure == "sum" and own & {item.column, item.by}
    ]
