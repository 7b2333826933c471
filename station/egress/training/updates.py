"""The guard's rules on arrays: a training reply becomes a canonical file of deltas from the inbound weights.

The reply is a file that hostile code filled. Nothing of it is copied: each released number is computed here, from the
reply and the inbound weights, piece by piece, so memory does not grow with the model. Each number is looked at in the pass
that writes it; where the policy clips, a pass before that one measures the norm. Withheld tensors are not looked at.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np

from policies.outputs import DType
from policies.policy import TensorRules
from policies.refusals import Reason, RefusalCode
from policies.wire.arrays import Array, TensorShape
from policies.wire.arrays_writing import ArraysWriter, WrittenArrays
from policies.wire.floats import BF16_MINUS_ZERO, ROUNDING, from_float
from policies.wire.releases import TensorRole
from station.egress.contract import ReleaseContract
from station.egress.training.measuring import Findings, measure, problem_with_floats, problem_with_integers
from station.egress.training.pairing import Floats, TensorPair, pair_tensors
from station.egress.training.pieces import PairFiles, Piece, in_order, jobs_of

_SMALLEST_FLOAT32_FACTOR: Final = 2.0**-64
"""A smaller factor belongs to steps so large that float32 would hold few bits of the products, or none."""


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
    scale = 1.0
    if rules.clipping_norm is not None:
        measured = measure(paired, rules)
        if isinstance(measured, tuple):
            return measured
        scale = scale_to(rules.clipping_norm, paired, measured)
    return _write(paired, rules, scale, out)


def scale_to(clipping_norm: float, pairs: Sequence[TensorPair], squares: float) -> float:
    """Return the factor that brings the parameters' deltas, as they will be rounded, within the norm; 1 where they are.

    Args:
        clipping_norm: the policy's.
        pairs: the tensors that may leave.
        squares: the sum of squares of the parameters' deltas (`station.egress.training.measuring.measure`).
    """
    released = [pair for pair in pairs if pair.is_parameter]
    elements = sum(pair.rule.reply.elements for pair in released)
    rounding = [ROUNDING[pair.released] for pair in released]
    relative = max((item[0] for item in rounding), default=0.0)
    absolute = max((item[1] for item in rounding), default=0.0)
    room = clipping_norm - math.sqrt(elements) * absolute
    norm = math.sqrt(squares) * (1.0 + relative)
    if norm <= room:
        return 1.0
    return max(room, 0.0) / norm if math.isfinite(norm) else 0.0


def _write(
    pairs: Sequence[TensorPair], rules: TensorRules, scale: float, out: Path
) -> WrittenArrays | tuple[Reason, ...]:
    """Write the released numbers, unless one of them breaks a rule; then no file is left."""
    by_name = {pair.name: pair for pair in pairs}
    shapes = [TensorShape(pair.name, pair.released, pair.rule.reply.shape) for pair in pairs]
    findings = Findings()
    with PairFiles(pairs) as files, ArraysWriter(out, shapes) as writer:

        def make(job: tuple[Piece, ...]) -> list[tuple[str, RefusalCode | None, Array]]:
            # Infinities and NaN are looked for, not warned about; each thread has its own setting.
            with np.errstate(all="ignore"):
                return [
                    (piece.pair.name, *made)
                    for piece in job
                    for made in _released(files, piece, rules, scale if piece.pair.is_parameter else 1.0)
                ]

        jobs = jobs_of(by_name[entry.name] for entry in writer.layout.entries)
        with closing(in_order(make, jobs)) as made:
            for results in made:
                for name, code, items in results:
                    findings.note(name, code)
                    if not findings.reasons:
                        writer.write(name, items)
        return findings.reasons or writer.close()


def _released(
    files: PairFiles, piece: Piece, rules: TensorRules, scale: float
) -> Iterator[tuple[RefusalCode | None, Array]]:
    """Yield what is wrong with some numbers, and the numbers as they would be released."""
    pair = piece.pair
    if pair.rule.role is TensorRole.INTEGER_BUFFER:
        for reply, inbound in files.blocks(piece):
            code = problem_with_integers(reply, inbound, pair, rules)
            yield code, reply.astype(np.int64) - inbound.astype(np.int64)
        return
    for delta in files.deltas(piece):
        code = problem_with_floats(delta, pair, rules)
        scaled: Floats = delta
        if scale != 1.0:
            wide = delta.dtype == np.float64 or scale < _SMALLEST_FLOAT32_FACTOR
            scaled = delta * np.float64(scale) if wide else np.multiply(delta, np.float32(scale), out=delta)
        yield code, _without_minus_zero(from_float(scaled, pair.released), pair.released)


def _without_minus_zero(items: Array, dtype: DType) -> Array:
    # The sign of a zero would be a bit of the train's choosing that no arithmetic sees. Always a copy: the buffer is used again.
    if dtype == "bfloat16":
        items[items == BF16_MINUS_ZERO] = 0
        return items
    return np.add(items, 0, dtype=items.dtype)
