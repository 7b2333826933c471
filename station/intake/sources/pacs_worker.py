"""The thread that works for one PACS: its retrievals and comparisons, one after another."""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from policies.errors import PhtError
from station.intake.intake import Intake
from station.intake.sources.journal import JobState, Journal
from station.intake.sources.pacs_faults import PacsError
from station.intake.sources.reconciliation import compare
from station.intake.sources.retrieval import AnyClient, Retriever
from station.intake.sources.surroundings import Surroundings
from station.settings.dicom import PacsSettings

LOG = logging.getLogger("station.intake.sources")

RETRY_PAUSE_S = 30.0


class ReconcileState(StrEnum):
    """How far a comparison is."""

    RUNNING = "running"
    REMOVED = "removed"
    NEEDS_CONFIRMATION = "needs-confirmation"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a comparison of a collection with a PACS found and did, in counts; see `Comparison`."""

    pacs: str
    collection: str
    state: ReconcileState
    reason: str = ""
    studies: int = 0
    unasked: int = 0
    unclear: int = 0
    instances: int = 0
    studies_gone: int = 0
    gone: int = 0
    removed: int = 0


class PacsWorker:
    """Works for one PACS on a thread of its own."""

    def __init__(
        self,
        settings: PacsSettings,
        client: Callable[[], AnyClient],
        surroundings: Surroundings,
        intake: Intake,
    ) -> None:
        self._settings = settings
        self._client = client
        self._around = surroundings
        self._intake = intake
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._stopping = threading.Event()
        self._interrupt = threading.Event()
        self._current: Journal | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="pacs-worker")
        self.reconciled: Reconciled | None = None

    @property
    def waiting(self) -> int:
        """How many tasks wait their turn."""
        return self._tasks.qsize()

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Leave what is under way where it is."""
        with self._lock:
            self._stopping.set()
            self._interrupt.set()
        self._tasks.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def retrieve(self, journal: Journal) -> None:
        """Work on a retrieval when its turn comes."""
        self._tasks.put(lambda: self._retrieve(journal))

    def interrupt(self, journal: Journal) -> None:
        """Leave a retrieval, if it is the one that is worked on."""
        with self._lock:
            if self._current is journal:
                self._interrupt.set()

    def reconcile(self, collection: str, confirmed: int | None) -> Reconciled:
        """Compare a collection with the PACS when its turn comes; `reconciled` tells how far it is."""
        self.reconciled = Reconciled(self._settings.name, collection, ReconcileState.RUNNING)
        self._tasks.put(lambda: self._reconcile(collection, confirmed))
        return self.reconciled

    def _run(self) -> None:
        while not self._stopping.is_set():
            task = self._tasks.get()
            if task is None or self._stopping.is_set():
                return
            task()

    def _retrieve(self, journal: Journal) -> None:
        with self._lock:
            if self._stopping.is_set() or journal.state is not JobState.RUNNING:
                return
            self._interrupt.clear()
            self._current = journal
        try:
            Retriever(self._settings, self._client(), self._around, self._interrupt).run(journal)
        except PhtError as error:
            # A full disk, or a certificate that cannot be read: the retrieval waits, and is tried again.
            LOG.error("pacs-retrieval-failed", extra={"code": type(error).__name__})  # noqa: TRY400
            if not self._stopping.wait(RETRY_PAUSE_S):
                self._tasks.put(lambda: self._retrieve(journal))
        else:
            counts = journal.report().items
            LOG.info(
                "pacs-retrieval-left",
                extra={"state": journal.state.value, "count": counts.get("retrieved", 0)},
            )
        finally:
            with self._lock:
                self._current = None

    def _reconcile(self, collection: str, confirmed: int | None) -> None:
        begun = Reconciled(self._settings.name, collection, ReconcileState.RUNNING)
        try:
            found = compare(self._client(), self._intake.held(collection), self._intake.remap_uid)
            counts = replace(
                begun,
                studies=found.studies,
                unasked=found.unasked,
                unclear=found.unclear,
                instances=found.instances,
                studies_gone=found.studies_gone,
                gone=len(found.gone),
            )
            if not found.may_remove(confirmed):
                self.reconciled = replace(counts, state=ReconcileState.NEEDS_CONFIRMATION)
                return
            removed = self._intake.remove_held(found.gone, "deleted") if found.gone else 0
            self._intake.flush()
            self.reconciled = replace(counts, state=ReconcileState.REMOVED, removed=removed)
            LOG.info("pacs-reconciled", extra={"count": removed})
        except PacsError as error:
            self.reconciled = replace(begun, state=ReconcileState.FAILED, reason=error.fault.value)
        except PhtError as error:
            LOG.error("pacs-reconcile-failed", extra={"code": type(error).__name__})  # noqa: TRY400
            self.reconciled = replace(begun, state=ReconcileState.FAILED, reason=type(error).__name__)
