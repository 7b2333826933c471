"""Why a pooled value of a run is not told: codes, and what they mean in words. The orchestrator gives them, the tools show them."""

from typing import Final

MINIMUM_POOLED: Final = 3
"""With two, each of them works out the other's; with one there is nothing pooled."""

TOO_FEW: Final = "POOLED_OF_TOO_FEW"
TELLS_ONE: Final = "POOLED_TELLS_ONE"
DIFFERENCE: Final = "POOLED_DIFFERENCE"
PARTLY: Final = "POOLED_OF_SOME"
WORDS: Final = {
    TOO_FEW: f"fewer than {MINIMUM_POOLED} stations released it",
    TELLS_ONE: "it would tell nearly what a single station released",
    DIFFERENCE: "other stations released it than where it was told before for the same question",
    PARTLY: "a station that released other tables did not release this one",
}
