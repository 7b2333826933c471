"""What the train of a finished run is asked to predict, and what came of it: one value, for whoever asks, makes and keeps."""

from dataclasses import dataclass, field

from station.audit.events import AuditEvent, AuditRecord
from station.predictions.book import NewPrediction
from station.predictions.folder import PredictionFolder
from station.runs.prepared import Evaluated, Prepared
from station.runs.repository import STATION_ACTOR, Run


@dataclass(slots=True)
class Made:
    """What came of a run's cases.

    Attributes:
        cases: that the train was asked about.
        failed: for which it did not answer.
        left_out: whose answer was not what is declared, or whose images could not be referred to.
        objects: made, synced, and not kept yet.
    """

    cases: int = 0
    failed: int = 0
    left_out: int = 0
    objects: list[NewPrediction] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """Of all objects."""
        return sum(each.size_bytes for each in self.objects)


@dataclass(frozen=True, slots=True)
class PredictionJob:
    """A run whose train is asked; that there is one means that policy, manifest and the hospital's settings all want it.

    Attributes:
        prepared: its container, cohort and work folder, which nobody else uses any more.
        evaluated: with which weights, and of which round the objects are.
        folder: the hospital's.
        most_bytes: of all objects together.
    """

    run: Run
    prepared: Prepared
    evaluated: Evaluated
    folder: PredictionFolder
    most_bytes: int
    made: Made = field(default_factory=Made)

    def record(self, event: AuditEvent, numbers: dict[str, int], words: str = "") -> AuditRecord:
        """Return the audit's entry of something that is done for it."""
        return AuditRecord(
            event=event,
            actor=STATION_ACTOR,
            on_behalf_of=self.run.requester,
            purpose=self.run.purpose,
            object=self.run.order_digest,
            numbers={"round": self.evaluated.round, **numbers},
            detail=f"{words}policy {self.run.policy_id} v{self.run.policy_version}",
        )
