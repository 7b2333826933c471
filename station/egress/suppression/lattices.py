"""Values that are whole numbers of one step, but for a few: the rest of their sum by the step is what those few add.

A sum of 199 ages in whole years and one value of 61.123457 is told with six decimals, and the decimals are the one's. So are the last
three digits of a sum of thousands. Nothing is said of steps that all values keep, nor of such that half of them do not.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Units = NDArray[np.int64]

_DECIMALS: Final = 6
"""As many as a sum is told with at the most."""
_DIGITS: Final = 15
"""So many decimal digits of a number of 64 bits are its own."""
_CHANCE: Final = 1e-6
"""Values that lie on a lattice with less chance than this, had they nothing to do with it, were put there."""
_CANDIDATES: Final = 8


def few_off_a_lattice(values: Values, minimum: int) -> bool:
    """Whether most values, or most squares, are whole numbers of a step and fewer than the minimum, but some, are not.

    1. Decimal steps, from 1 down to the last decimal: what people write and machines round to.
    2. Any step, from any number on: each of as many shares of the values as the minimum has its common step, and one share at
       least holds nobody who is off. Here half is not enough: three of four are asked for, and more than chance puts there.

    Args:
        values: one of each patient.
        minimum: the least patients.

    >>> few_off_a_lattice(np.array([62.0] * 30 + [71.0] * 30 + [61.5]), 10)
    True
    >>> few_off_a_lattice(np.arange(60) / 2, 10)
    False
    """
    if len(values) < 2 or not bool(np.isfinite(values).all()):
        return False
    squares = values * values
    # The step of squares is a square, so that as many lie on it as on the root of it.
    return any(
        _off_decimals(units, digits, minimum) or _off_any(units, minimum, power)
        for (units, digits), power in ((_in_units(values), 1.0), (_in_units(squares), 0.5))
    )


def _in_units(values: Values) -> tuple[Units, int]:
    """Return whole numbers of the smallest decimal unit that is told and kept, and how many decimals that has."""
    largest = float(np.abs(values).max())
    digits = _DECIMALS if largest == 0 else min(_DECIMALS, _DIGITS - math.ceil(math.log10(largest)))
    return np.rint(values * 10.0**digits).astype(np.int64), digits


def _off_decimals(units: Units, digits: int, minimum: int) -> bool:
    for place in range(1, digits + 1):
        off = int(np.count_nonzero(units % 10**place))
        if 0 < off < minimum and 2 * off <= len(units):
            return True
    return False


def _off_any(units: Units, minimum: int, power: float) -> bool:
    finest = int(np.gcd.reduce(units - units[0]))
    shares = min(minimum, len(units) // 3)
    seen: set[tuple[int, int]] = set()
    for number in range(shares):
        share = units[number::shares]
        away = units - share[0]
        step = int(np.gcd.reduce(share - share[0]))
        key = step, int(share[0]) % step if step else int(share[0])
        if step == finest or key in seen:
            continue
        seen.add(key)
        # Of each patient, the coarsest step that divides this share's and that the patient keeps too.
        kept, often = np.unique(np.gcd(away, step), return_counts=True)
        for chosen in kept[np.argsort(-often, kind="stable")[:_CANDIDATES]].tolist():
            if chosen == 0:
                continue
            off = int(often[kept % chosen != 0].sum())
            if 0 < off < minimum and _is_no_chance(len(units), off, (chosen / finest) ** power):
                return True
    return False


def _is_no_chance(patients: int, off: int, times: float) -> bool:
    """Whether so few lie off a lattice that is so many times as coarse as the one that all lie on."""
    ways = math.lgamma(patients + 1) - math.lgamma(off + 1) - math.lgamma(patients - off + 1)
    return 4 * off <= patients and ways - (patients - off - 1) * math.log(times) < math.log(_CHANCE)
