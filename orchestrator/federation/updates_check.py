"""The orchestrator's own check of a station's update: the rules on arrays that its guard has, held against the bytes that came."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from orchestrator.federation.replies import Accepted, Rejected, Verdict
from policies.documents import digest_of_file
from policies.errors import WireError
from policies.policy import ReleaseRules, TensorRules
from policies.privacy.grid import NoiseGrid
from policies.refusals import RefusalCode
from policies.wire.arrays import (
    Array,
    ArrayLimits,
    TensorEntry,
    chunks_of,
    open_tensor,
    raw_dtype,
    read_layout,
)
from policies.wire.arrays_writing import is_canonical
from policies.wire.floats import BF16_MINUS_ZERO, LARGEST, ROUNDING, as_float
from policies.wire.instructions import Blob
from policies.wire.releases import ReleaseTensor, TensorRole

DIGEST: Final = "RELEASE_DIGEST"
"""The bytes are not those that the reply names."""

_TAIL: Final = 16.0
"""So many standard deviations beyond its expectation the noise's norm may be: more comes once in exp(128)."""
_SUMMED: Final = 1e-9
"""What double precision may lose of a sum of squares."""

_Place = tuple[Path, TensorEntry]


def check_release(
    release: Blob,
    path: Path,
    inbound: Path,
    expected: tuple[ReleaseTensor, ...],
    rules: ReleaseRules,
) -> Verdict:
    """Judge a release's bytes.

    1. They are what their digest says.
    2. They hold the contract's tensors, in their released types and the one order and form that a guard writes.
    3. Every number is finite, within the policy's range, and no minus zero; whole numbers stay in their tensor's range.
    4. With noise, every number is on the grid that noise is drawn on.
    5. The norm of the parameters together is what the policy's clipping norm leaves, with noise what that may add.

    Args:
        release: what the reply says it is.
        path: the bytes.
        inbound: the weights that the delta starts from.
        expected: from `policies.wire.releases.release_tensors`, which the station's guard uses too.
        rules: the policy's.
    """
    if path.stat().st_size != release.size or digest_of_file(path) != release.digest:
        return Rejected(DIGEST)
    try:
        layout = read_layout(path, ArrayLimits(max_bytes=release.size))
    except WireError:
        return Rejected(RefusalCode.RELEASE_UNPARSEABLE)
    found = layout.by_name()
    wanted = {tensor.reply.name: tensor.released for tensor in expected if tensor.released is not None}
    if found.keys() - wanted.keys():
        return Rejected(RefusalCode.RELEASE_TENSOR_EXTRA)
    if wanted.keys() - found.keys():
        return Rejected(RefusalCode.RELEASE_TENSOR_MISSING)
    if any(found[name].tensor.shape != tensor.shape for name, tensor in wanted.items()):
        return Rejected(RefusalCode.RELEASE_TENSOR_SHAPE)
    if any(found[name].tensor.dtype != tensor.dtype for name, tensor in wanted.items()):
        return Rejected(RefusalCode.RELEASE_TENSOR_DTYPE)
    if not is_canonical(path, layout):
        return Rejected(RefusalCode.RELEASE_UNPARSEABLE)
    released = [tensor for tensor in expected if tensor.released is not None]
    return _check_numbers(path, found, inbound, released, rules)


def _check_numbers(
    path: Path,
    found: dict[str, TensorEntry],
    inbound: Path,
    released: list[ReleaseTensor],
    rules: ReleaseRules,
) -> Verdict:
    tensors = rules.tensors or TensorRules()
    norm = _Norm.of(rules, released)
    weights = read_layout(inbound).by_name()
    squares = 0.0
    for tensor in released:
        place = (path, found[tensor.reply.name])
        if tensor.role is TensorRole.INTEGER_BUFFER:
            if not _stays_in_range(place, (inbound, weights[tensor.reply.name]), tensors.maximum_absolute):
                return Rejected(RefusalCode.RELEASE_TENSOR_RANGE)
            continue
        most = norm.most_of_each(place[1])
        for piece in chunks_of(open_tensor(*place)):
            code, part = _look_at(piece, place[1], most, norm.step)
            if code is not None:
                return Rejected(code)
            squares += part if tensor.role is TensorRole.PARAMETER else 0.0
    return Accepted() if math.sqrt(squares) <= norm.most else Rejected("RELEASE_NORM")


def _look_at(
    piece: Array, entry: TensorEntry, most: float, step: float | None
) -> tuple[RefusalCode | None, float]:
    """Return what is wrong with some numbers, and the sum of their squares."""
    if piece.size == 0:
        return None, 0.0
    values = as_float(piece, entry.tensor.dtype)
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        return RefusalCode.RELEASE_TENSOR_NOT_FINITE, 0.0
    if max(-low, high) > most or _has_minus_zero(piece, entry):
        return RefusalCode.RELEASE_TENSOR_RANGE, 0.0
    wide = values.astype(np.float64)
    squares = float(np.einsum("i,i->", wide, wide))
    if step is not None:
        wide /= step
        if not np.array_equal(wide, np.rint(wide)):
            return RefusalCode.RELEASE_TENSOR_RANGE, 0.0
    return None, squares


def _has_minus_zero(piece: Array, entry: TensorEntry) -> bool:
    if entry.tensor.dtype == "bfloat16":
        return bool((piece == BF16_MINUS_ZERO).any())
    # By its bits: one pass.
    bits = np.dtype(f"u{piece.dtype.itemsize}")
    return bool((piece.view(bits) == np.array(-0.0, piece.dtype).view(bits)).any())


@dataclass(frozen=True, slots=True)
class _Norm:
    """How large the numbers of an update can be.

    Attributes:
        most: the L2 norm of its parameters.
        each: one number, as the policy bounds it; None where noise is added after that bound.
        step: of the grid that noise is drawn on; None without noise.
    """

    most: float
    each: float | None
    step: float | None

    @classmethod
    def of(cls, rules: ReleaseRules, released: list[ReleaseTensor]) -> "_Norm":
        tensors = rules.tensors or TensorRules()
        clipped, privacy = tensors.clipping_norm, rules.differential_privacy
        parameters = [tensor for tensor in released if tensor.role is TensorRole.PARAMETER]
        elements = sum(tensor.reply.elements for tensor in parameters)
        if clipped is None:
            return cls(math.inf, tensors.maximum_absolute, None)
        if privacy is None:
            return cls(clipped * (1 + _SUMMED), tensors.maximum_absolute, None)
        grid = NoiseGrid.of(clipped, elements)
        sigma = privacy.noise_multiplier * math.sqrt(grid.sensitivity_squared) * grid.step
        rounding = [ROUNDING[tensor.released_dtype] for tensor in parameters if tensor.released_dtype]
        relative = max((item[0] for item in rounding), default=0.0)
        absolute = max((item[1] for item in rounding), default=0.0)
        # A norm of independent noise is seldom more than its expectation and some deviations of one number.
        most = (clipped + sigma * (math.sqrt(elements) + _TAIL)) * (1 + relative) + math.sqrt(
            elements
        ) * absolute
        return cls(most, None, grid.step)

    def most_of_each(self, entry: TensorEntry) -> float:
        """Return the largest size of a number of a tensor."""
        dtype = entry.tensor.dtype
        if self.each is None:
            return LARGEST[dtype]
        return min(self.each * (1 + ROUNDING[dtype][0]) + ROUNDING[dtype][1], LARGEST[dtype])


def _stays_in_range(delta: _Place, inbound: _Place, maximum_absolute: float) -> bool:
    dtype = inbound[1].tensor.dtype
    bounds = np.iinfo(raw_dtype(dtype).name)
    low, high = (0, 1) if dtype == "bool" else (int(bounds.min), int(bounds.max))
    for step, base in zip(chunks_of(open_tensor(*delta)), chunks_of(open_tensor(*inbound)), strict=True):
        if not step.size:
            continue
        # In float64 first: a sum that overflows int64 would wrap into the range.
        wide = step.astype(np.float64)
        moved = base.astype(np.float64) + wide
        if float(np.abs(wide).max()) > maximum_absolute:
            return False
        if float(moved.min()) < low or float(moved.max()) > high:
            return False
    return True
