"""The guard's rules on arrays under differential privacy: a training reply becomes a canonical file of noisy deltas.

    measure:  find what must not leave; the norm of the deltas          (nothing is drawn)
    write:    scale -> round onto a grid of whole steps -> add noise -> leave

What one patient can change. The train is not trusted: with one patient replaced it may return the opposite of what it would have
returned. So the deltas' L2 sensitivity is twice what their norm is held to, and it is held to as whole numbers, after rounding:

1. The grid's step is a power of two, at most a 2048th of the clipping norm C and at most C/(16 sqrt(numbers)): rounding at random adds less than a
   thousandth to the square of the norm on average, and less than a hundredth at all but for chances below exp(-500).
2. Deltas are scaled so that their norm, in double precision, is at most 0.99 C.
3. Each is rounded to one of its two neighbours on the grid, at random so that its expectation stays what it was. The sum of squares of the
   whole numbers is counted exactly; where a piece would use up what the rest of the deltas needs, it is rounded towards zero instead, which
   never adds to the norm. So the sum of squares is at most (C/step)^2, for every input, whatever floating point did; it is
   looked at once more at the end, and if it were not, nothing would leave.
4. Each whole number gets discrete Gaussian noise with sigma = noise multiplier * 2 * floor(C/step), in whole numbers.
5. The step is put back (exact) and the numbers are rounded to the released dtype: a function of noisy numbers alone. Up to 2^24 steps
   float32 holds them exactly, so the file shows nothing but grid points.

Two passes and pieces of constant size, as without noise. Buffers do not leave: they have no bound. What is not finite or beyond the policy's
range withholds everything, so that a train can still say one thing by failing; that is counted as capacity, not as privacy.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.outputs import DType
from policies.privacy import Query, QueryKind
from policies.privacy.grid import NoiseGrid
from policies.privacy.sensitivities import SHARE_OF_NORM
from policies.refusals import Reason, RefusalCode
from policies.wire.arrays import Array, TensorShape
from policies.wire.arrays_writing import ArraysWriter, WrittenArrays
from policies.wire.floats import LARGEST, from_float
from policies.wire.releases import TensorRole
from station.egress.contract import ReleaseContract
from station.egress.privacy.drawing import ChargedNoise
from station.egress.privacy.randomness import RandomBits
from station.egress.training.measuring import measure
from station.egress.training.pairing import TensorPair, pair_tensors
from station.egress.training.pieces import PairFiles, pieces_of

UPDATE: Final = Query(QueryKind.UPDATE)

_NORMS: Final = (2.0**-80, 2.0**80)
_UNIFORM: Final = 2.0**-32
# Numbers at a time: what belongs to them stays in a processor's own memory.
_PIECE: Final = 1 << 15


@dataclass(frozen=True, slots=True)
class MeasuredUpdate:
    """Deltas that may leave once they have noise; made by `measure_update`.

    Attributes:
        pairs: parameters, each a tensor of the reply and of the inbound weights.
        grid: that they are put on.
        scale: that brings their norm within the clipping norm.
        norm: of the deltas before; stays inside.
    """

    pairs: tuple[TensorPair, ...]
    grid: NoiseGrid
    scale: float
    norm: float

    def write(self, noise: ChargedNoise, out: Path) -> WrittenArrays | tuple[Reason, ...]:
        """Write the deltas with noise.

        Args:
            noise: charged for `update`.
            out: the file to write.

        Raises:
            StateError: it was not charged, or its noise was drawn before.
            StorageError: a file cannot be read or written.
        """
        sampler = noise.sampler(UPDATE, self.grid.sensitivity_squared)
        pairs = {pair.name: pair for pair in self.pairs}
        shapes = [TensorShape(pair.name, pair.released, pair.rule.reply.shape) for pair in self.pairs]
        rounding = _Rounding(self.grid, self.norm * self.scale)
        with np.errstate(all="ignore"), PairFiles(self.pairs) as files, ArraysWriter(out, shapes) as writer:
            for piece in pieces_of(pairs[entry.name] for entry in writer.layout.entries):
                for chunk in files.deltas(piece):
                    for start in range(0, chunk.size, _PIECE):
                        part = chunk[start : start + _PIECE] * np.float64(self.scale)
                        whole = rounding.rounded(part)
                        whole += sampler.draw(whole.size)
                        writer.write(piece.pair.name, _released(whole, self.grid.step, piece.pair.released))
            if rounding.squares > self.grid.bound**2:
                return (Reason(RefusalCode.STATION_FAULT, "the norm of an update went over its bound"),)
            return writer.close()


def measure_update(
    contract: ReleaseContract, reply: Path, inbound: Path
) -> MeasuredUpdate | tuple[Reason, ...]:
    """Look whether a reply's deltas may leave with noise; nothing is drawn or written.

    1. The policy's rules are such that noise can protect: a clipping norm of a sane size, and no buffers.
    2. Both files parse under ceilings; the reply holds exactly the contract's tensors.
    3. Every delta is finite and within the policy's bound.

    Args:
        contract: with its tensors and their rules.
        reply: the train's file, untrusted; nobody else writes to it any more.
        inbound: the weights that the round started from.

    Raises:
        StorageError: a file cannot be read.
    """
    rules = contract.tensor_rules
    norm = None if rules is None else rules.clipping_norm
    if contract.tensors is None or rules is None or norm is None or not _NORMS[0] <= norm <= _NORMS[1]:
        return (Reason(RefusalCode.RELEASE_NOT_PERMITTED, "noise needs inbound weights and a clipping norm"),)
    paired = pair_tensors(contract, reply, inbound)
    if isinstance(paired, tuple):
        return paired
    if any(pair.rule.role is not TensorRole.PARAMETER for pair in paired):
        return (Reason(RefusalCode.RELEASE_NOT_PERMITTED, "buffers do not leave with noise"),)
    squares = measure(paired, rules)
    if isinstance(squares, tuple):
        return squares
    length = math.sqrt(squares)
    scale = min(1.0, SHARE_OF_NORM * norm / length) if length > 0.0 else 1.0
    grid = NoiseGrid.of(norm, sum(pair.rule.reply.elements for pair in paired))
    return MeasuredUpdate(tuple(paired), grid, scale, length)


class _Rounding:
    """Rounds deltas onto the grid, in pieces, so that the norm of all of them as whole numbers stays within its bound.

    Args:
        grid: with the bound.
        norm: of all that is to come, in double precision.
    """

    def __init__(self, grid: NoiseGrid, norm: float) -> None:
        self._per_step = 1.0 / grid.step
        self._bound = grid.bound**2
        self._to_come = (norm * self._per_step) ** 2
        self._bits = RandomBits()
        self.squares = 0

    def rounded(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the whole numbers of the next piece."""
        steps = values * self._per_step
        self._to_come -= _squares(steps)
        uniform = self._bits.words(steps.size, np.uint32).astype(np.float64)
        uniform *= _UNIFORM
        uniform += steps
        whole = np.floor(uniform)
        # Sums of squares of whole numbers below 2^53: exact.
        squares = int(_squares(whole))
        # A millionth for what double precision lost over all pieces.
        if self.squares + squares + max(0.0, self._to_come) + 1e-6 * self._bound > self._bound:
            whole = np.trunc(steps)
            squares = int(_squares(whole))
        self.squares += squares
        return whole.astype(np.int64)


def _squares(values: NDArray[np.float64]) -> float:
    # Not by BLAS: for vectors it would wake threads that wait busily for one another.
    return float(np.einsum("i,i", values, values))


def _released(whole: NDArray[np.int64], step: float, dtype: DType) -> Array:
    values = whole.astype(np.float64)
    values *= step
    largest = LARGEST[dtype]
    np.clip(values, -largest, largest, out=values)
    return from_float(values, dtype)
