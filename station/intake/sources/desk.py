"""The station's DICOM network as the operator and the service see it: the receiver, and what is asked of each PACS.

One retrieval at a time per PACS, the others wait their turn; after a start the unfinished ones go on.
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

from policies.errors import NotFoundError, StateError, UsageError
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.intake.sources import queries
from station.intake.sources.dicomweb import DicomwebClient, web_access
from station.intake.sources.journal import (
    JobItem,
    JobReport,
    JobState,
    Journal,
    forget_old,
    journals,
    new_card,
)
from station.intake.sources.manners import is_open
from station.intake.sources.network import TlsFiles
from station.intake.sources.pacs_client import PacsClient
from station.intake.sources.pacs_worker import PacsWorker, Reconciled
from station.intake.sources.queries import StudyCriteria
from station.intake.sources.receiver import Receiver
from station.intake.sources.reception import Route
from station.intake.sources.rejections import Rejection
from station.intake.sources.retrieval import AnyClient
from station.intake.sources.routing import Routing
from station.intake.sources.surroundings import Surroundings
from station.intake.spool import StagedBatch
from station.settings.dicom import PacsSettings, ReceiverSettings

LOG = logging.getLogger("station.intake.sources")

MAX_DAYS = 3660
KEPT = timedelta(days=90)
"""How long a retrieval that is over can be looked up; what names its accessions goes then."""

DEFAULT_MODALITIES = ("CR", "DX", "CT")
"""The modalities of the images that intake takes up."""


@dataclass(frozen=True, slots=True)
class DicomNetwork:
    """What the settings say of the hospital's DICOM network.

    Attributes:
        sop_classes: the images that intake takes up.
        zone: the hospital's time zone.
        collections: what a retrieval may be for; None for any.
    """

    sop_classes: Sequence[str]
    receiver: ReceiverSettings = field(default_factory=ReceiverSettings)
    pacs: Sequence[PacsSettings] = ()
    zone: tzinfo = UTC
    collections: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class PacsView:
    """One PACS, and how far what was asked of it is."""

    name: str
    method: str
    open_now: bool
    waiting: int


class _IntakeSink:
    """Gives intake what was received."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def received(self, batch: StagedBatch) -> None:
        """A batch stands in the spool."""
        self._intake.received(batch)

    def rejected(self, rejection: Rejection) -> None:
        """Instances were rejected at the source: removed, and kept out when they come after their rejection."""
        removed = self._intake.remove_instances(rejection.sop_instance_uids, "rejected", expected=True)
        self._intake.flush()
        LOG.info("dicom-instances-rejected", extra={"code": rejection.code, "count": removed})


class PacsDesk:
    """Use it between `start` and `stop`.

    Args:
        intake: the use cases.
        paths: intake's folders.
        network: the settings.
    """

    def __init__(self, intake: Intake, paths: IntakePaths, network: DicomNetwork) -> None:
        self._intake = intake
        self._network = network
        self._root = paths.root / "retrievals"
        self._routing = Routing(network.receiver.feeds)
        self._sink = _IntakeSink(intake)
        self._receiver: Receiver | None = None
        self._journals: dict[str, Journal] = {}
        self._lock = threading.Lock()
        self._home = paths.home
        self._spool = paths.spool
        self._workers = {pacs.name: self._worker(pacs) for pacs in network.pacs}

    def start(self) -> None:
        """Listen, where the settings say so, and go on with what is unfinished.

        Raises:
            UnavailableError: the receiver's address cannot be listened on.
            StateError: a file of the TLS side, or a retrieval's journal, cannot be used.
        """
        settings = self._network.receiver
        if settings.enabled:
            self._receiver = Receiver(
                settings,
                _tls(self._home, settings),
                self._spool,
                self._network.sop_classes,
                self._routing,
                self._sink,
            )
            self._receiver.start()
        for worker in self._workers.values():
            worker.start()
        forget_old(self._root, datetime.now(UTC) - KEPT)
        for journal in journals(self._root):
            self._journals[journal.card.job] = journal
            if journal.state in {JobState.RUNNING, JobState.STOPPED} and journal.card.pacs in self._workers:
                journal.say(JobState.RUNNING)
                self._workers[journal.card.pacs].retrieve(journal)

    def stop(self) -> None:
        """Leave what is under way where it is; it goes on at the next start."""
        for worker in self._workers.values():
            worker.stop()
        if self._receiver is not None:
            self._receiver.stop()

    @property
    def receiver_port(self) -> int | None:
        """Where the receiver listens; None where it does not."""
        return self._receiver.port if self._receiver is not None else None

    def pacs(self) -> list[PacsView]:
        """Return every PACS of the settings."""
        now = datetime.now(UTC)
        return [
            PacsView(
                pacs.name,
                pacs.method,
                is_open(pacs.hours, self._network.zone, now),
                self._workers[pacs.name].waiting,
            )
            for pacs in self._network.pacs
        ]

    def echo(self, name: str) -> None:
        """Verify that a PACS answers.

        Raises:
            NotFoundError: there is no such PACS.
            PacsError: it does not.
        """
        with self._client(name).asking() as association:
            association.echo()

    def query(self, name: str, criteria: StudyCriteria) -> int:
        """Return how many studies a PACS has by these criteria.

        Raises:
            NotFoundError: there is no such PACS.
            UsageError: it may not be asked now, or the period is too long.
            PacsError: it could not be asked.
        """
        return len(self._find(name, criteria))

    def retrieve_accessions(
        self, name: str, collection: str, data: bytes, modalities: Sequence[str] = DEFAULT_MODALITIES
    ) -> JobReport:
        """Begin to retrieve the studies of a list of accession numbers.

        Raises:
            NotFoundError: there is no such PACS.
            UsageError: there is no such collection.
            CsvError: the list is not one; names the line.
            StorageError: the journal cannot be written.
        """
        items = [JobItem(accession=accession) for accession in queries.accession_list(data)]
        return self._begin(name, collection, items, modalities, "")

    def retrieve_studies(self, name: str, collection: str, criteria: StudyCriteria) -> JobReport:
        """Begin to retrieve the studies that a PACS has by these criteria.

        Raises:
            NotFoundError: there is no such PACS, or no such study.
            UsageError, PacsError: as `query`.
            StorageError: the journal cannot be written.
        """
        items = [JobItem(study_uid=study) for study in self._find(name, criteria)]
        if not items:
            raise NotFoundError("the PACS has no such study")
        return self._begin(name, collection, items, criteria.modalities, criteria.body_part)

    def retrievals(self) -> list[JobReport]:
        """Return every retrieval, oldest first."""
        with self._lock:
            return [self._journals[job].report() for job in sorted(self._journals)]

    def retrieval(self, job: str) -> JobReport:
        """Return how far a retrieval is.

        Raises:
            NotFoundError: there is no such retrieval.
        """
        return self._journal(job).report()

    def resume(self, job: str) -> JobReport:
        """Go on with a retrieval that stopped or was cancelled.

        Raises:
            NotFoundError: there is no such retrieval, or its PACS is in the settings no longer.
        """
        journal = self._journal(job)
        worker = self._worker_of(journal.card.pacs)
        if journal.state in {JobState.STOPPED, JobState.CANCELLED}:
            journal.say(JobState.RUNNING)
            worker.retrieve(journal)
        return journal.report()

    def cancel(self, job: str) -> JobReport:
        """Leave a retrieval where it is until it is resumed.

        Raises:
            NotFoundError: there is no such retrieval.
        """
        journal = self._journal(job)
        if journal.state in {JobState.RUNNING, JobState.STOPPED}:
            journal.say(JobState.CANCELLED)
            self._worker_of(journal.card.pacs).interrupt(journal)
        return journal.report()

    def reconcile(self, name: str, collection: str, confirmed: int | None = None) -> Reconciled:
        """Begin to compare a collection with a PACS, and remove what is gone there.

        Args:
            name: the PACS.
            collection: all of what it holds must come from this PACS.
            confirmed: how many instances the operator was told are gone, where they are many.

        Raises:
            NotFoundError, UsageError: as `query` and `retrieve_accessions`.
        """
        worker = self._worker_of(name)
        self._require_collection(collection)
        self._require_open(name)
        return worker.reconcile(collection, confirmed)

    def reconciled(self, name: str) -> Reconciled | None:
        """Return how far the latest reconciliation with a PACS is.

        Raises:
            NotFoundError: there is no such PACS.
        """
        return self._worker_of(name).reconciled

    def _begin(
        self, name: str, collection: str, items: Sequence[JobItem], modalities: Sequence[str], body_part: str
    ) -> JobReport:
        worker = self._worker_of(name)
        self._require_collection(collection)
        card = new_card(
            datetime.now(UTC), name, collection, items, modalities=modalities, body_part=body_part
        )
        journal = Journal.create(self._root, card)
        with self._lock:
            self._journals[card.job] = journal
        worker.retrieve(journal)
        return journal.report()

    def _find(self, name: str, criteria: StudyCriteria) -> list[str]:
        days = (criteria.last - criteria.first).days + 1
        if days > MAX_DAYS:
            raise UsageError(f"the period is over {MAX_DAYS} days", hint="Ask for it in parts.")
        client = self._client(name)
        self._require_open(name)
        found: dict[str, None] = {}
        # A day at a time: PACS cut long answers off, and not all of them say so.
        with client.asking() as association:
            for day in (criteria.first + timedelta(days=number) for number in range(days)):
                for modality in criteria.modalities:
                    answers = association.find(queries.studies_of_day(day, modality))
                    found.update(
                        dict.fromkeys(study.study_uid for study in queries.read_studies(answers, day=day))
                    )
        return list(found)

    def _settings(self, name: str) -> PacsSettings:
        for pacs in self._network.pacs:
            if pacs.name == name:
                return pacs
        raise NotFoundError("there is no such PACS here", hint="Name one of [[pacs]] in station.toml.")

    def _client(self, name: str) -> AnyClient:
        settings = self._settings(name)
        if settings.method == "dicomweb":
            access = web_access(self._home, settings)
            return DicomwebClient(settings, access, self._network.sop_classes)
        return PacsClient(settings, _tls(self._home, settings), self._network.sop_classes)

    def _worker(self, settings: PacsSettings) -> PacsWorker:
        def expecting(route: Route) -> AbstractContextManager[None]:
            return self._routing.expecting(settings.ae_title, settings.destination, route)

        surroundings = Surroundings(
            self._network.zone, self._spool, self._sink, expecting, lambda: datetime.now(UTC)
        )
        return PacsWorker(settings, lambda: self._client(settings.name), surroundings, self._intake)

    def _worker_of(self, name: str) -> PacsWorker:
        return self._workers[self._settings(name).name]

    def _journal(self, job: str) -> Journal:
        with self._lock:
            if job not in self._journals:
                raise NotFoundError("there is no such retrieval")
            return self._journals[job]

    def _require_collection(self, collection: str) -> None:
        offered = self._network.collections
        if offered is not None and collection not in offered:
            raise UsageError(
                "there is no such collection here", hint="Name one of [[collections]] in station.toml."
            )

    def _require_open(self, name: str) -> None:
        if not is_open(self._settings(name).hours, self._network.zone, datetime.now(UTC)):
            raise UsageError(
                "the PACS may not be asked at this hour", hint="Its hours stand in station.toml."
            )


def _tls(home: Path, settings: ReceiverSettings | PacsSettings) -> TlsFiles | None:
    if settings.tls == "none":
        return None
    files = (settings.tls_ca_file, settings.tls_certificate_file, settings.tls_key_file)
    authority, certificate, key = ((home / file) if file is not None else None for file in files)
    if authority is None or certificate is None or key is None:
        raise StateError("DICOM TLS: a file is not named in station.toml")
    return TlsFiles(authority, certificate, key)
