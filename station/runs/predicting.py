"""After a run: its warm train marks and measures the hospital's own images, for the hospital alone.

    last evaluation released -> order finished, told outside -> container kept -> asked case by case -> judged -> DICOM, apart
        -> container, cohort and work wiped -> consent and policy once more -> recorded -> in the hospital's folder

Here: which runs, in which window, and in what order; who asks, makes and keeps are `asking_predictions`, `making_predictions` and
`keeping_predictions`.

Invariants: only where policy, manifest and the hospital's settings all want it; nothing of it is in a release, in the ledger, or in what any
message is answered with; what is asked of consent and policy is asked again when it is put on record (I7). Under a policy with a timing
quantum the run's place, its container and the moments of its records are those of the whole window, whatever the train did in it: how
long it takes is its own to choose, and another order that is refused for want of room must not tell it. An order's lock is not held.
"""

import logging
import threading
from collections.abc import Callable
from typing import Final

from policies.errors import PhtError
from station.admission.gatekeeper import Gatekeeper
from station.catalogue import Catalogue
from station.cohorts import CohortKey
from station.predictions.book import PredictionBook
from station.predictions.folder import PredictionFolder
from station.runs.asking_predictions import PredictionAsking, Window
from station.runs.containers import RunContainers
from station.runs.keeping_predictions import PredictionKeeping
from station.runs.making_predictions import drop
from station.runs.prediction_job import PredictionJob
from station.runs.prepared import Prepared
from station.runs.repository import Run
from station.sandbox.spec import MIB

log = logging.getLogger(__name__)

_JOIN_S: Final = 60.0
_LAST_S: Final = 60.0
"""Of the window's end, at most a quarter: nothing is asked then, so that of what was answered objects can still be made."""
_MAKING: Final = 3 / 4
"""The part of that in which they are: making one ends then, done or not, for the window is not to end later than it does."""


class Predicting:
    """Has warm trains asked whose runs are over.

    Args:
        containers: how long they may run, and the moments at which what they do may tell anything.
        gatekeeper: what permits.
        catalogue: what there is, and who consents.
        cohort_key: names cases and objects.
        book: what is on record.
        folder: the hospital's; None asks nobody for anything.
    """

    def __init__(
        self,
        containers: RunContainers,
        gatekeeper: Gatekeeper,
        catalogue: Catalogue,
        cohort_key: CohortKey,
        book: PredictionBook,
        folder: PredictionFolder | None,
    ) -> None:
        self._settings, self._clock, self._moments = containers.settings, containers.clock, containers.moments
        self._book = book
        self._folder = folder
        self._asking = PredictionAsking(self._settings, gatekeeper, catalogue, cohort_key, self._moments)
        self._keeping = PredictionKeeping(gatekeeper, catalogue, book)
        self._threads: set[threading.Thread] = set()

    def job_of(self, run: Run, prepared: Prepared) -> PredictionJob | None:
        """Return what a run that is over is to be asked; follows from documents, settings and releases, and from nothing a train did since."""
        evaluated = prepared.evaluated
        if self._folder is None or evaluated is None:
            return None
        policy, manifest = prepared.admitted.verified.in_force.policy, prepared.admitted.manifest
        if not policy.release.local_predictions or not manifest.outputs.predictions:
            return None
        if self._book.written(prepared.admitted.verified.digest, evaluated.round):
            return None
        most_bytes = self._settings.predictions.max_mib * MIB
        return PredictionJob(run, prepared, evaluated, self._folder, most_bytes)

    def begin(self, job: PredictionJob, ended: Callable[[], None]) -> None:
        """Ask in a thread of its own; `ended` is called once, when the train is asked no more, whatever happened."""

        def work() -> None:
            try:
                try:
                    self._ask(job)
                finally:
                    # Before anything is kept: how much that is, and so how long it takes, is the train's to choose.
                    _end(ended)
                self._keeping.keep(job)
            except PhtError as error:
                log.error("predictions.fault", extra={"reason": type(error).__name__})  # noqa: TRY400 - no text of others
            except Exception:  # the outermost boundary of this thread
                log.exception("predictions.bug")
            finally:
                # What is on record, and could not be put in its place, the next start puts there.
                drop(job.folder, job.made.objects)
                self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=work, name=f"predict-{job.run.order_digest[7:15]}", daemon=True)
        self._threads.add(thread)
        thread.start()

    @property
    def at_work(self) -> bool:
        """Whether anything is asked, made or kept."""
        return bool(self._threads)

    def close(self) -> None:
        """Wait for the threads to end: their containers were ended by whoever stops the station."""
        for thread in list(self._threads):
            thread.join(_JOIN_S)

    def _ask(self, job: PredictionJob) -> None:
        """Ask, and make.

        1. Use of the data is audited.
        2. The train is asked case by case, and what it answers becomes objects that nobody sees yet, within the window.
        3. With a quantum, the rest of the window is waited for.

        Raises:
            UnavailableError: the station stops; what was made goes with it.
            StorageError, StateError: the folder, the disk, or the audit.
        """
        since = self._moments.now()
        policy = job.prepared.admitted.verified.in_force.policy
        left_s = self._clock.left_s(job.run.order_digest, policy.resources.run_hours)
        window_s = min(60.0 * self._settings.predictions.minutes, left_s)
        # 1
        self._keeping.note_use(job)
        # 2, 3
        held = window_s if policy.release.timing_quantum_s > 0 else 0.0
        last_s = min(_LAST_S, window_s / 4)
        until = since + window_s - last_s
        with self._moments.holding(since, held, lambda: job.prepared.ended_by is not None):
            self._ask_within(job, Window(until, until + _MAKING * last_s))

    def _ask_within(self, job: PredictionJob, window: Window) -> None:
        """Make what can be made; a fault ends it, and what was made before is kept: there is one record in any case."""
        try:
            self._asking.ask(job, window)
        except PhtError as error:
            log.error("predictions.fault", extra={"reason": type(error).__name__})  # noqa: TRY400 - no text of others
        except Exception:  # an answer that provokes one must not show in the number of records
            log.exception("predictions.bug")


def _end(ended: Callable[[], None]) -> None:
    try:
        ended()
    except PhtError as error:
        log.error("predictions.not_ended", extra={"reason": type(error).__name__})  # noqa: TRY400 - no text of others
