"""What a train answers to one request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .frames import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNCAUGHT = "UNCAUGHT"
"""The error of a reply when the train's code failed without naming one of its declared codes."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    Attributes:
        metrics: numbers by name.
        rows: a list of one value per patient by column, in the order of datalist.json.
        scores: one number per case, in the order of the datalist; the answer to ``score`` and to nothing else.
        arrays: the tensors by name.
        arrays_path: a safetensors file to send in place of ``arrays``.
        error: a declared error code; then the rest stays empty.
    """

    metrics: Mapping[str, Json] = field(default_factory=dict)
    rows: Mapping[str, Json] = field(default_factory=dict)
    arrays: "Mapping[str, NDArray[np.generic]]" = field(default_factory=dict)
    arrays_path: str | None = None
    error: str | None = None
    scores: Sequence[Json] = ()
