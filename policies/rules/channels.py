"""How many bits one released number, tensor or table can say: the counting behind `policies.rules.capacity`.

Each answer is an upper bound on the information that a hostile train can put into an output, in bits. Without noise it is
the logarithm of how many different outputs there are; with noise it is a bound on the channel's mutual information,
whatever the train sends. Pure arithmetic; no documents.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from policies.outputs import DType, MetricOutput

NUMBER_BITS: Final = 64
FINEST_STEPS: Final = 1 << 20
"""Into so many steps a station divides a metric's range at most before it adds noise."""

_WHOLE_WIDTHS: Final[Mapping[str, int]] = {
    "bool": 1,
    "uint8": 8,
    "int8": 8,
    "int16": 16,
    "int32": 32,
    "int64": 64,
}
# Mantissa bits, smallest and largest exponent of a normal number.
_FORMATS: Final[Mapping[str, tuple[int, int, int]]] = {
    "float32": (23, -126, 127),
    "bfloat16": (7, -126, 127),
    "float16": (10, -14, 15),
}
# Where the bound of `clipped_bits` is looked for, around the one that a ball of equal coordinates has; any value is sound.
_TILTS: Final = tuple(2.0**step for step in range(-24, 25))


def float_values(dtype: DType, largest: float) -> int:
    """Count the finite numbers of a released type up to a size, both signs, one zero.

    One more is counted on each side: a number below the bound may be rounded up to the next one beyond it.

    >>> float_values("float16", 1e9), float_values("bfloat16", 1e-50)
    (63487, 3)
    """
    mantissa, lowest, highest = _FORMATS[dtype]
    finite = (highest - lowest + 2 << mantissa) - 1
    if largest <= 0:
        return 1
    fraction, exponent = math.frexp(largest)
    if exponent - 1 > highest:
        return 2 * finite + 1
    if exponent - 1 < lowest:
        positive = math.floor(largest * 2.0**-lowest * (1 << mantissa))
    else:
        positive = (exponent - 1 - lowest << mantissa) + math.floor(fraction * (2 << mantissa))
    return 2 * min(finite, positive + 1) + 1


def floats_bits(elements: Mapping[DType, int], largest: float) -> float:
    """Bound what numbers of some released types can say, each no larger than `largest`."""
    return math.fsum(count * math.log2(float_values(dtype, largest)) for dtype, count in elements.items())


def clipped_bits(elements: Mapping[DType, int], norm: float, largest: float) -> float:
    """Bound what numbers whose Euclidean norm together is at most `norm` can say.

    Counts the points of the released types' grid in the ball by Chernoff's argument: for every t >= 0 their number is at most
    ``exp(t norm^2) * prod_i sum_x exp(-t x^2)``, since ``exp(t (norm^2 - |x|^2)) >= 1`` for each of them. The smallest over
    some t is taken; that is sound for any t. Floating-point grids are dense near zero, so clipping takes few bits away.
    """
    bound = floats_bits(elements, min(norm, largest))
    total = sum(elements.values())
    if not total:
        return 0.0
    # `t` stands for the tilt times norm^2: scaled, so that it neither over- nor underflows.
    return min(bound, *(_tilted_bits(elements, norm, tilt * total / 2) for tilt in _TILTS))


def _tilted_bits(elements: Mapping[DType, int], norm: float, tilt: float) -> float:
    bits = tilt / math.log(2)
    for dtype, count in elements.items():
        mantissa, lowest, highest = _FORMATS[dtype]
        step = 2**mantissa
        points = 1.0 + 2.0 * (step - 1)  # zero, and what is smaller than any normal number
        for exponent in range(lowest, highest + 1):
            ratio = 2.0**exponent / norm
            if ratio > 1:
                break
            # Each of a binade counted as its smallest number.
            points += 2.0 * step * math.exp(-tilt * ratio * ratio)
        bits += count * math.log2(points)
    return bits


def whole_bits(dtype: DType, elements: int, largest: float) -> float:
    """Bound what differences of whole numbers can say: given the inbound ones, as much as the type holds, and the bound lets through."""
    if dtype not in _WHOLE_WIDTHS:
        return float(elements * NUMBER_BITS)
    span = math.log2(2 * math.floor(min(largest, 2.0**62)) + 1)
    return elements * min(float(_WHOLE_WIDTHS[dtype]), span)


def metric_bits(metric: MetricOutput) -> float:
    """Bound what a metric can say: the multiples of its last decimal within its range, its two ends, and that it is missing.

    >>> from policies.splits import Split
    >>> loss = MetricOutput(
    ...     key="loss", stage="train", minimum=0.0, maximum=0.29, decimals=2, split=Split.TRAINING
    ... )
    >>> round(2 ** metric_bits(loss), 6)
    30.0
    """
    missing = 0 if metric.required else 1
    if metric.type == "int":
        # A whole number is told as it is, with as many digits as its bounds let it have: no width of a type caps it.
        return math.log2(math.floor(metric.maximum) - math.ceil(metric.minimum) + 1 + missing)
    scale = 10**metric.decimals
    low, high = (Fraction(repr(float(end))) * scale for end in (metric.minimum, metric.maximum))
    values = max(0, math.floor(high) - math.ceil(low) + 1)
    # Rounded values are brought within the range, so that an end that is no multiple is told too.
    values += sum(1 for end in (low, high) if end.denominator != 1)
    # It leaves as a float64 however wide its range: fewer than 2^64 of those are numbers, so "missing" is among so many bits.
    return min(float(NUMBER_BITS), math.log2(values + missing))


def noisy_bits(noise_multiplier: float) -> float:
    """Bound what a whole released vector can say under Gaussian noise, in bits: ``1 / (8 z^2 ln 2)`` for the multiplier z.

    The vector x lies in a ball: a clipped update in that of radius C about zero, a number of a declared range R in that of
    radius R/2 about the middle. The noise has sigma = z * (the ball's diameter), replace-one. For any distribution Q of
    outputs, ``I(X; Y) <= max_x D(P(Y|x) || Q)`` (Gallager 1968, theorem 4.5.1; Cover and Thomas 2006, 13.1). With Q the noise
    about the centre, ``D = |x|^2 / (2 sigma^2) <= 1 / (8 z^2)`` nats: equality for the Gaussian, and no more for the discrete
    Gaussian between points of its grid (Canonne, Kamath and Steinke 2020, proposition 5, order 1). Rounding afterwards adds nothing.

    The capacity of d Gaussian channels under that power, ``d/2 log2(1 + 1 / (4 d z^2))`` (Cover and Thomas 2006, 9.4), tends
    to this for large d and holds for real numbers only. What follows from privacy alone, rho n^2 for n patients under
    rho-zCDP (Bun and Steinke 2016, proposition 1.6), is larger: rho is 4 times this already for one.

    >>> round(noisy_bits(1.0), 4)
    0.1803
    """
    return 1.0 / (8.0 * noise_multiplier**2 * math.log(2))


def noisy_metric_bits(metric: MetricOutput, noise_multiplier: float) -> float:
    """Bound what a metric can say under noise: as `noisy_bits`, its middle moved to a point of the grid that the noise is on."""
    decimals = metric.decimals if metric.type == "float" else 0
    steps = min(max(1.0, (metric.maximum - metric.minimum) * 10.0**decimals), float(FINEST_STEPS))
    return min(metric_bits(metric), noisy_bits(noise_multiplier) * (1.0 + 1.0 / steps) ** 2)


def table_bits(cells: int, most: int, rounding: int | None) -> float:
    """Bound what a table of counts over at most `most` patients can say: `cells` counts, each hidden or a multiple of `rounding`.

    Whatever is hidden, rounded or blurred afterwards, it is made of the exact counts; of those there are as many as ways to deal
    out up to `most` patients to the cells. With noise (`rounding` None) nothing else is counted.
    """
    each = math.inf if rounding is None else cells * math.log2(most // rounding + 2)
    dealt = math.lgamma(most + cells + 1) - math.lgamma(most + 1) - math.lgamma(cells + 1)
    return min(each, dealt * (1 + 1e-9) / math.log(2))
