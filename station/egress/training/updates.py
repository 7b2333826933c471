"""The guard's rules on arrays: a training reply becomes a canonical file of deltas from the inbound weights.

The reply is a file that hostile code filled. Nothing of it is copied: each released number is computed here, from the
reply and the inbound weights, tensor by tensor in chunks, so memory does not grow with the model. Two passes: the first
measures and may withhold, the second writes. Withheld buffers are not looked at.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from policies.manifest import DType
from policies.policy import TensorRules
from policies.refusals import Reason, RefusalCode
from policies.wire.arrays import Array, TensorShape
from policies.wire.arrays_writing import ArraysWriter, WrittenArrays
from policies.wire.floats import from_float
from policies.wire.releases import TensorRole
from station.egress.contract import ReleaseContract
from station.egress.figures import TENSOR_NAME, shown
from station.egress.training.pairing import TensorPair, pair_tensors

_LARGEST: Final[dict[DType, float]] = {
    "bfloat16": float(np.array(0x7F7F0000, np.uint32).view(np.float32)),
    "float16": float(np.finfo(np.float16).max),
    "float32": float(np.finfo(np.float32).max),
}
# Unit round-off and smallest step near zero of each released type: how far rounding may move a norm.
_ROUNDING: Final[dict[DType, tuple[float, float]]] = {
    "bfloat16": (2.0**-8, 2.0**-133),
    "float16": (2.0**-11, 2.0**-24),
    "float32": (2.0**-22, 2.0**-149),
}
_LARGEST_INTEGER_STEP: Final = float(1 << 60)
_BF16_MINUS_ZERO: Final = np.uint16(0x8000)


def release_update(
    contract: ReleaseContract, reply: Path, inbound: Path, out: Path
) -> WrittenArrays | tuple[Reason, ...]:
    """Write the deltas that may leave.

    1. Both files parse under ceilings; the reply holds exactly the contract's tensors.
    2. Every number to be released is finite and within the policy's bound.
    3. The parameters' deltas together are scaled to the clipping norm, where there is one.
    4. Deltas are rounded to the released dtype, minus zero made zero, and written in canonical form.

    Args:
        contract: with its tensors and their rules.
        reply: the train's file, untrusted; nobody else writes to it any more.
        inbound: the weights that the round started from, as their digest said.
        out: the file to write.

    Returns:
        What was written, or why nothing was.

    Raises:
        StorageError: a file cannot be read or written.
    """
    if contract.tensors is None or contract.tensor_rules is None:
        return (Reason(RefusalCode.RELEASE_NOT_PERMITTED, "the inbound weights are not known"),)
    paired = pair_tensors(contract, reply, inbound)
    if isinstance(paired, tuple):
        return paired
    rules = contract.tensor_rules
    with np.errstate(all="ignore"):  # infinities and NaN are looked for, not warned about
        measured = _measure(paired, rules)
        if isinstance(measured, tuple):
            return measured
        return _write(paired, _scale(paired, measured, rules.clipping_norm), out)


def _measure(pairs: Sequence[TensorPair], rules: TensorRules) -> float | tuple[Reason, ...]:
    """Check every number that will leave; return the parameters' sum of squares (0 where nothing is clipped)."""
    found: dict[RefusalCode, list[str]] = {
        RefusalCode.RELEASE_TENSOR_NOT_FINITE: [],
        RefusalCode.RELEASE_TENSOR_RANGE: [],
    }
    squares = 0.0
    for pair in pairs:
        if pair.rule.role is TensorRole.INTEGER_BUFFER:
            code = _integers_problem(pair, rules)
        else:
            code, part = _floats_problem(pair, rules)
            squares += part
        if code is not None:
            found[code].append(pair.name)
    reasons = tuple(Reason(code, shown(names, TENSOR_NAME)) for code, names in found.items() if names)
    return reasons or squares


def _floats_problem(pair: TensorPair, rules: TensorRules) -> tuple[RefusalCode | None, float]:
    bound = min(rules.maximum_absolute, _LARGEST[pair.released])
    squares = 0.0
    problem = None
    for delta in pair.deltas():
        # Minimum and maximum both propagate NaN, so they answer finiteness and range together.
        low, high = float(delta.min()), float(delta.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            return RefusalCode.RELEASE_TENSOR_NOT_FINITE, 0.0
        if max(-low, high) > bound:
            problem = RefusalCode.RELEASE_TENSOR_RANGE
        if pair.is_parameter and rules.clipping_norm is not None:
            wide = delta.astype(np.float64)
            squares += float(np.dot(wide, wide))
    return problem, squares


def _integers_problem(pair: TensorPair, rules: TensorRules) -> RefusalCode | None:
    for reply, inbound in pair.chunks():
        if pair.rule.reply.dtype == "bool" and max(reply.max(), inbound.max()) > 1:
            return RefusalCode.RELEASE_TENSOR_RANGE
        # In float64 first: a difference that overflows int64 would wrap to a small one.
        rough = reply.astype(np.float64) - inbound.astype(np.float64)
        if float(np.abs(rough).max()) > min(rules.maximum_absolute, _LARGEST_INTEGER_STEP):
            return RefusalCode.RELEASE_TENSOR_RANGE
    return None


def _scale(pairs: Sequence[TensorPair], squares: float, clipping_norm: float | None) -> float:
    """Return the factor that brings the parameters' deltas, as they will be rounded, within the norm."""
    if clipping_norm is None:
        return 1.0
    released = [pair for pair in pairs if pair.is_parameter]
    elements = sum(pair.rule.reply.elements for pair in released)
    rounding = [_ROUNDING[pair.released] for pair in released]
    relative = max((item[0] for item in rounding), default=0.0)
    absolute = max((item[1] for item in rounding), default=0.0)
    room = clipping_norm - math.sqrt(elements) * absolute
    norm = math.sqrt(squares) * (1.0 + relative)
    if norm <= room:
        return 1.0
    return max(room, 0.0) / norm if math.isfinite(norm) else 0.0


def _write(pairs: Sequence[TensorPair], scale: float, out: Path) -> WrittenArrays:
    by_name = {pair.name: pair for pair in pairs}
    shapes = [TensorShape(pair.name, pair.released, pair.rule.reply.shape) for pair in pairs]
    with ArraysWriter(out, shapes) as writer:
        for entry in writer.layout.entries:
            pair = by_name[entry.name]
            if pair.rule.role is TensorRole.INTEGER_BUFFER:
                for reply, inbound in pair.chunks():
                    writer.write(pair.name, reply.astype(np.int64) - inbound.astype(np.int64))
                continue
            for delta in pair.deltas():
                # In float64: a large step needs so small a factor that float32 would hold but a few bits of it.
                scaled = delta * np.float64(scale) if pair.is_parameter and scale != 1.0 else delta
                writer.write(pair.name, _without_minus_zero(from_float(scaled, pair.released), pair.released))
        return writer.close()


def _without_minus_zero(items: Array, dtype: DType) -> Array:
    # The sign of a zero would be a bit of the train's choosing that no arithmetic sees.
    if dtype == "bfloat16":
        items[items == _BF16_MINUS_ZERO] = 0
        return items
    return np.add(items, 0, dtype=items.dtype)
