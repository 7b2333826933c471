"""What the hospital's operator reads of predictions: how many are kept of which run, and how many went again. Nobody is named."""

from dataclasses import dataclass
from typing import Literal

from policies.documents import Moment, StrictModel
from station.predictions.book import PredictionBook


class PredictionsOfRun(StrictModel):
    """What is kept of one prediction of one round of an order.

    Attributes:
        kept: objects in the folder.
        removed: that were there, and went: withdrawn, over their term, or lost.
        size_bytes: of those in the folder.
    """

    order: str
    policy: str
    round: int
    name: str
    kind: Literal["segmentation", "measurements"]
    kept: int
    removed: int
    size_bytes: int
    written: Moment


class PredictionsView(StrictModel):
    """All of them, newest first.

    Attributes:
        folder: the hospital's; None where it named none, and no train is asked.
    """

    folder: str | None
    runs: list[PredictionsOfRun]


@dataclass(frozen=True, slots=True)
class PredictionsDesk:
    """Reads the record."""

    book: PredictionBook
    folder: str | None

    def view(self) -> PredictionsView:
        """Return what is kept now, in counts."""
        return PredictionsView(
            folder=self.folder,
            runs=[
                PredictionsOfRun(
                    order=each.order_digest,
                    policy=each.policy_id,
                    round=each.round,
                    name=each.name,
                    kind="segmentation" if each.kind == "segmentation" else "measurements",
                    kept=each.kept,
                    removed=each.removed,
                    size_bytes=each.size_bytes,
                    written=each.written,
                )
                for each in self.book.by_run()
            ],
        )
