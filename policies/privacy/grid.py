"""The grid on which an update with noise lies: the station rounds onto it, and the orchestrator sees that what came lies on it. Pure."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

_COARSEST: Final = 2.0**-11
_SHARE_OF_ROUNDING: Final = 1 / 16


@dataclass(frozen=True, slots=True)
class NoiseGrid:
    """The whole numbers that deltas become.

    Attributes:
        step: of the grid, a power of two.
        bound: of the L2 norm, in steps.
    """

    step: float
    bound: int

    @classmethod
    def of(cls, clipping_norm: float, elements: int) -> "NoiseGrid":
        """Return the grid of an update.

        >>> NoiseGrid.of(1.0, 1_000_000)
        NoiseGrid(step=6.103515625e-05, bound=16384)
        """
        finest = min(_COARSEST, _SHARE_OF_ROUNDING / math.sqrt(max(1, elements)))
        _, exponent = math.frexp(clipping_norm * finest)
        step = math.ldexp(1.0, exponent - 1)
        return cls(step, math.floor(Fraction(clipping_norm) / Fraction(step)))

    @property
    def sensitivity_squared(self) -> int:
        """Under replace-one, in steps."""
        return (2 * self.bound) ** 2
