"""Noise: integers of the discrete Gaussian distribution, many at once, exactly distributed.

Floating-point Gaussian or Laplace noise can be undone (Mironov 2012): its values lie on grids that differ between neighbours. Here noise
is integers, data are integers on the same grid, and no floating-point number of the noise ever leaves.

How it is drawn: rejection. A proposal picks one of some hundred bins with a dyadic probability c/2^16 (a table look-up with 16 bits) and
an offset within it uniformly. It is accepted with probability S exp(-x^2/(2 sigma^2))/c, so that what is accepted is distributed as
exp(-x^2/(2 sigma^2)), whatever the numbers c and S are, as long as that probability is at most one. That comparison is the one
place where an error could do harm, and it is decided exactly: the remaining bits u of the proposal are the first bits of a uniform number;
the probability is computed in double precision with an error below 2^-45, and where u is within 2^-40 of it (or its last bit decides),
more bits are drawn and compared with the probability to as many decimal digits as it takes. What remains:

- The tail beyond 16 sigma is cut off. It holds less than 2 exp(-128) < 1e-55 of the probability (the distribution's tail is below the
  continuous one's: Canonne et al. 2020), so a billion draws differ from the exact ones by less than 1e-46 in total variation, and delta
  grows by less than 1e-46 (1 + exp(epsilon)). Beside any delta that means something this is nothing; it is not charged.
- ChaCha20 stands for uniform bits.
- numpy's exp of double precision is taken to err by less than 2^-46 relatively (it claims under 2^-51), its other operations to round.

Proposals come in blocks of fixed sizes, so that how long a small draw takes does not follow its values (Jin et al. 2022).
"""

import math
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from station.egress.privacy.randomness import RandomBits

LARGEST_VARIANCE: Final = 1 << 72
"""Above it offsets within bins would leave too few bits to compare with."""
SMALLEST_VARIANCE: Final = Fraction(1, 1 << 20)

_TAIL: Final = 16
_INDEX_BITS: Final = 16
_INDICES: Final = 1 << _INDEX_BITS
_INDEX_MASK: Final = np.uint64(_INDICES - 1)
_WORD_BITS: Final = 64
# At most 32 bins, at least 16, to twice the standard deviation: few enough for a small table, narrow enough to accept 19 of 20.
_BINS_PER_SIGMA_BITS: Final = 3
_DOUBT: Final = 2.0**-40
_SMALLEST_BLOCK: Final = 512
_LARGEST_BLOCK: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class _Table:
    """How proposals are made for one variance.

    Attributes:
        shift: bins hold 2^shift numbers.
        starts: the least number of each bin.
        shares: how many of the indices stand for each bin.
        constant: S.
        bin_of_index: the bin of each index.
        factors: S over the share of each bin, times two to the number of bits that decide.
    """

    shift: int
    starts: NDArray[np.int64]
    shares: NDArray[np.int64]
    constant: float
    bin_of_index: NDArray[np.intp]
    factors: NDArray[np.float64]


@lru_cache(maxsize=8)
def _table(variance: Fraction) -> _Table:
    """Share the indices out to the bins, so that no acceptance probability is above one."""
    whole_sigma = math.isqrt(math.ceil(variance))
    shift = max(0, (whole_sigma >> _BINS_PER_SIGMA_BITS).bit_length() - 1)
    side = (_TAIL * (whole_sigma + 1) >> shift) + 1
    starts = np.arange(-side, side, dtype=np.int64) << shift
    nearest = np.where(starts < 0, starts + ((1 << shift) - 1), starts).astype(np.float64)
    highest = np.exp(nearest * nearest * float(-1 / (2 * variance))) * (1.0 + _DOUBT)
    low, high = 0.0, float(_INDICES)
    for _ in range(60):
        middle = (low + high) / 2
        if int(np.maximum(np.ceil(highest * middle), 1.0).sum()) <= _INDICES:
            low = middle
        else:
            high = middle
    shares = np.maximum(np.ceil(highest * low), 1.0).astype(np.int64)
    shares[int(np.argmax(shares))] += _INDICES - int(shares.sum())
    return _Table(
        shift=shift,
        starts=starts,
        shares=shares,
        constant=low,
        bin_of_index=np.repeat(np.arange(len(starts), dtype=np.intp), shares),
        factors=np.ldexp(low / shares.astype(np.float64), _WORD_BITS - _INDEX_BITS - shift),
    )


class DiscreteGaussian:
    """Draws integers x with probability proportional to exp(-x^2 / (2 variance)).

    Args:
        variance: the parameter sigma squared; the distribution's own variance is never above it (Canonne et al. 2020).
        bits: where randomness comes from; of this draw alone.

    Raises:
        ValueError: the variance is out of the range that can be drawn.
    """

    def __init__(self, variance: Fraction, bits: RandomBits) -> None:
        if not SMALLEST_VARIANCE <= variance <= LARGEST_VARIANCE:
            raise ValueError("the variance of the noise is out of range")
        self._variance = variance
        self._bits = bits
        self._rate = float(-1 / (2 * variance))
        self._table = _table(variance)
        self._decision_bits = _WORD_BITS - _INDEX_BITS - self._table.shift

    def draw(self, count: int) -> NDArray[np.int64]:
        """Return independent draws.

        Args:
            count: how many; memory is 8 bytes each and a block of constant size.

        Returns:
            A new array of shape (count,).
        """
        made = np.empty(count, np.int64)
        filled = 0
        while filled < count:
            wanted = count - filled
            block = min(_LARGEST_BLOCK, -(-(wanted + wanted // 8) // _SMALLEST_BLOCK) * _SMALLEST_BLOCK)
            accepted = self._block(block)[:wanted]
            made[filled : filled + len(accepted)] = accepted
            filled += len(accepted)
        return made

    def _block(self, proposals: int) -> NDArray[np.int64]:
        table = self._table
        words = self._bits.words(proposals, np.uint64)
        bins = table.bin_of_index[(words & _INDEX_MASK).astype(np.intp)]
        words >>= np.uint64(_INDEX_BITS)
        values = (words & np.uint64((1 << table.shift) - 1)).view(np.int64)
        values += table.starts[bins]
        words >>= np.uint64(table.shift)
        margin = values.astype(np.float64)
        np.multiply(margin, margin, out=margin)
        margin *= self._rate
        np.exp(margin, out=margin)
        margin *= table.factors[bins]
        margin -= words.view(np.int64)  # fewer than 49 bits: exact
        doubt = math.ldexp(_DOUBT, self._decision_bits)
        accepted = margin >= 1.0 + doubt
        doubtful = np.flatnonzero((margin > -doubt) ^ accepted)
        for place in doubtful.tolist():
            accepted[place] = self._decide(int(values[place]), int(bins[place]), int(words[place]))
        return values[accepted]

    def _decide(self, value: int, which: int, uniform: int) -> bool:
        """Decide one acceptance exactly: is the uniform number that begins with these bits below the probability?"""
        gamma = Fraction(value * value) / (2 * self._variance)
        factor = Fraction(self._table.constant) / int(self._table.shares[which])
        bits = self._decision_bits
        while True:
            uniform = (uniform << _WORD_BITS) | self._bits.integer(_WORD_BITS)
            bits += _WORD_BITS
            low, high = _scaled_exp(factor, gamma, bits)
            if uniform + 1 <= low:
                return True
            if uniform >= high:
                return False


def _scaled_exp(factor: Fraction, gamma: Fraction, bits: int) -> tuple[Decimal, Decimal]:
    """Return bounds of factor * exp(-gamma) * 2^bits, closer than 1e-15 for factors of at most 2^16 and gammas below 2^30."""
    digits = bits * 3 // 10 + 40
    context = Context(prec=digits, Emax=10**12, Emin=-(10**12))
    power = context.divide(Decimal(-gamma.numerator), Decimal(gamma.denominator)).exp(context)
    scale = factor * (1 << bits)
    value = context.multiply(power, context.divide(Decimal(scale.numerator), Decimal(scale.denominator)))
    # The quotient errs by half a digit of its last place, which the exponential multiplies by at most 2^30.
    slack = context.multiply(value, Decimal(10) ** (12 - digits))
    return context.subtract(value, slack), context.add(value, slack)
