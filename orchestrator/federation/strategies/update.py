"""One station's update, and what may be wrong with several."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policies.errors import DataError

Floats = NDArray[np.float32] | NDArray[np.float64]


class NotFiniteError(DataError):
    """An update that is not finite, or finite ones that combine to what is not: no training step."""


class TooFewUpdatesError(DataError):
    """Fewer updates than the strategy means anything with."""


@dataclass(frozen=True, slots=True)
class Update:
    """One station's validated release.

    Attributes:
        station: its name.
        delta: the safetensors file of deltas, checked by `replies.check_release`.
        num_examples: the station's own rounded count, above 0.
    """

    station: str
    delta: Path
    num_examples: int
