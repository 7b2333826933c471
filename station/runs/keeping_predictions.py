"""Puts predictions on record and in their places: what of them may be kept is asked when nothing is asked of the train any more.

Invariant: whose data are used is on record before the train is asked; what is kept is on record before it is in its place (I6).
"""

from dataclasses import dataclass

from policies.refusals import RefusalCode, Refused
from station.admission.gatekeeper import Gatekeeper
from station.audit.events import AuditEvent
from station.catalogue import Catalogue
from station.predictions.book import NewPrediction, PredictionBook
from station.runs.prediction_job import PredictionJob
from station.runs.usage import note_use


@dataclass(frozen=True, slots=True)
class PredictionKeeping:
    """Keeps what came of one job after another."""

    gatekeeper: Gatekeeper
    catalogue: Catalogue
    book: PredictionBook

    def note_use(self, job: PredictionJob) -> None:
        """Put on record that a train is about to be asked about its cohort.

        Raises:
            StorageError: nothing was recorded; it may not be asked.
        """
        prepared, now = job.prepared, self.gatekeeper.now()
        policy = prepared.admitted.verified.in_force.policy
        numbers = {"patients": prepared.counts.patients}
        self.book.note(
            job.record(AuditEvent.DATA_USED, numbers, f"stage predict cohort {prepared.cohort.digest} "),
            lambda session: note_use(session, job.run.order_digest, policy, prepared.cohort, now),
        )

    def keep(self, job: PredictionJob) -> None:
        """Keep what may be kept; what may not is left in `job.made`.

        1. Consent, policy and what ended the run meanwhile are asked once more; one record says what is kept.
        2. What is kept is put in its place.

        Raises:
            StorageError: the folder, the disk, or the audit.
        """
        made = job.made
        # 1
        self.catalogue.sync()
        self.gatekeeper.policy_set(fresh=False)
        kept = self._permitted(job)
        numbers = {
            "cases": made.cases,
            "failed": made.failed,
            "left_out": made.left_out,
            "made": len(made.objects),
            "kept": len(kept),
            "bytes": sum(each.size_bytes for each in kept),
        }
        self.book.keep(kept, job.record(AuditEvent.PREDICTIONS_KEPT, numbers), self.gatekeeper.now())
        recorded = {each.file for each in kept}
        made.objects = [each for each in made.objects if each.file not in recorded]
        # 2
        for each in kept:
            job.folder.keep(each.file)

    def _permitted(self, job: PredictionJob) -> list[NewPrediction]:
        """Return what may be kept now: of who still consents, under a policy that is still in force."""
        prepared = job.prepared
        if prepared.ended_by not in {None, RefusalCode.CONSENT_WITHDRAWN}:
            return []
        if self.gatekeeper.no_longer_in_force(prepared.admitted.verified) is not None:
            return []
        standing = self.gatekeeper.consenting(prepared.admitted)
        if isinstance(standing, Refused):
            return []
        return [each for each in job.made.objects if each.sources <= standing.files]
