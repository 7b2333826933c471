"""Floats as they lie in arrays: bfloat16 and its neighbours to and from what numpy computes with."""

from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from policies.outputs import DType
from policies.wire.arrays import Array, raw_dtype

BF16_MINUS_ZERO: Final = np.uint16(0x8000)

LARGEST: Final[dict[DType, float]] = {
    "bfloat16": float(np.array(0x7F7F0000, np.uint32).view(np.float32)),
    "float16": float(np.finfo(np.float16).max),
    "float32": float(np.finfo(np.float32).max),
}
"""The largest finite number of each type that floats are released in."""

# Unit round-off and smallest step near zero of each released type, with what the factor and its product lose in float32
# before: how far all of it may move a norm.
ROUNDING: Final[dict[DType, tuple[float, float]]] = {
    "bfloat16": (2.0**-8 + 2.0**-20, 2.0**-133),
    "float16": (2.0**-11 + 2.0**-20, 2.0**-24),
    "float32": (2.0**-22, 2.0**-149),
}


def bfloat16_from_float32(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 to bfloat16 bits, to nearest, ties to even; NaN stays NaN, overflow becomes infinity.

    >>> [hex(bits) for bits in bfloat16_from_float32(np.array([1.0, -2.5, 3.4e38], np.float32))]
    ['0x3f80', '0xc020', '0x7f80']
    """
    bits = np.ascontiguousarray(values, dtype="<f4").view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits  # cannot wrap for anything but NaN, which is set below
    rounded >>= np.uint32(16)
    result = rounded.astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():
        result[nan] = 0x7FC0
    return result


def float32_from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bfloat16 bits as float32, exactly."""
    widened = bits.astype(np.uint32)
    widened <<= np.uint32(16)
    return widened.view(np.float32)


def as_float(items: Array, dtype: DType) -> NDArray[np.float32] | NDArray[np.float64]:
    """Return raw items of a float tensor as float32, or as float64 where they are."""
    if dtype == "bfloat16":
        return float32_from_bfloat16(cast("NDArray[np.uint16]", items))
    if dtype == "float64":
        return items.astype(np.float64, copy=False)
    return items.astype(np.float32, copy=False)


def from_float(values: NDArray[np.float32] | NDArray[np.float64], dtype: DType) -> Array:
    """Round floats to the raw items of a float tensor, to nearest, ties to even."""
    if dtype == "bfloat16":
        return bfloat16_from_float32(values.astype(np.float32, copy=False))
    return values.astype(raw_dtype(dtype), copy=False)
