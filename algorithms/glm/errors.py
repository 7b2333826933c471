"""Why a regression cannot go on: each with the code that the train's manifest declares."""

from enum import StrEnum
from typing import Final


class Code(StrEnum):
    """The declared error codes."""

    MODEL_INVALID = "MODEL_INVALID"
    DATA_UNEXPECTED = "DATA_UNEXPECTED"
    TOO_FEW_PATIENTS = "TOO_FEW_PATIENTS"
    CELL_TOO_SMALL = "CELL_TOO_SMALL"
    RANK_DEFICIENT = "RANK_DEFICIENT"
    SEPARATED = "SEPARATED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    WEIGHTS_DO_NOT_FIT = "WEIGHTS_DO_NOT_FIT"


class GlmError(ValueError):
    """A regression that cannot go on.

    The text is for who may read the container's log, the hospital's operator alone; outside, the code is all that is told, where the
    policy permits it.

    Attributes:
        pht_error_code: what the runtime answers with.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.pht_error_code: Final = code.value
