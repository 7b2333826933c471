"""Retrieves what a job asks for from a PACS, item by item, with manners, and writes down how far each is.

For one item: the studies of the accession (C-FIND), their series of the wanted kind (C-FIND), each series (C-MOVE or C-GET),
and a comparison of what came with what the PACS said there is. An item that is missing or fails costs that item.
"""

import threading
import time
from contextlib import ExitStack

from policies.errors import StorageError
from station.intake.sources import queries
from station.intake.sources.agenda import Agenda, Outcome
from station.intake.sources.dicomweb import DicomwebClient
from station.intake.sources.journal import ItemState, JobCard, JobItem, JobState, Journal
from station.intake.sources.link import Link
from station.intake.sources.manners import Pace, is_open, opens_at
from station.intake.sources.pacs_client import PacsClient
from station.intake.sources.pacs_faults import PacsError
from station.intake.sources.queries import FoundSeries
from station.intake.sources.reception import Expectation, Route
from station.intake.sources.surroundings import Surroundings
from station.intake.sources.web_link import WebLink
from station.intake.spool import SourceKind
from station.settings.dicom import PacsSettings

NOT_FOUND, NO_WANTED_SERIES = "not-found", "no-wanted-series"
INCOMPLETE, OTHER_KINDS_LEFT = "incomplete", "other-kinds-left"

_HOURS_LOOK_S = 30.0
_IDLE_ASSOCIATION_S = 5.0

AnyClient = PacsClient | DicomwebClient
AnyLink = Link | WebLink
Wanted = tuple[str, FoundSeries]
"""A series to retrieve, and its study."""


class _StoppedError(Exception):
    """Raised in the middle of an item when the retrieval is to end."""


class Retriever:
    """Works on the retrievals of one PACS, one after another.

    Args:
        settings: the PACS.
        client: makes associations or sessions with it.
        surroundings: the station.
        stop: ends the work in the middle of an item; it goes on another time.
    """

    def __init__(
        self, settings: PacsSettings, client: AnyClient, surroundings: Surroundings, stop: threading.Event
    ) -> None:
        self._settings = settings
        self._client = client
        self._around = surroundings
        self._stop = stop
        self._lock = threading.Lock()
        self._studies = Pace(settings.studies_per_minute)
        self._instances = Pace(settings.instances_per_minute)

    def run(self, journal: Journal) -> None:
        """Work on a retrieval until it is finished, stopped, or `stop` is set.

        Raises:
            StorageError: the journal or the spool cannot be written; it goes on another time.
        """
        agenda = Agenda(journal, self._settings)
        expectation = Expectation()
        with ExitStack() as stack:
            if self._settings.method == "c-move":
                route = Route(journal.card.collection, SourceKind.C_MOVE, expectation)
                stack.enter_context(self._around.expecting(route))
            work = [
                threading.Thread(target=self._work, args=(agenda, expectation), name="pacs-association")
                for _ in range(self._settings.associations - 1)
            ]
            for thread in work:
                thread.start()
            try:
                self._work(agenda, expectation)
            finally:
                for thread in work:
                    thread.join()
        agenda.raise_fault()
        if not self._stop.is_set() and journal.state is JobState.RUNNING and not journal.open_items():
            journal.say(JobState.FINISHED)
        journal.write_details()

    def _work(self, agenda: Agenda, expectation: Expectation) -> None:
        link = self._link(agenda, expectation)
        try:
            while not self._stop.is_set() and (number := agenda.next()) is not None:
                try:
                    self._wait_for_hours(link)
                    outcome = self._item(link, agenda, number)
                except PacsError as error:
                    link.close()
                    pause_s = agenda.failed(number, error.fault)
                    if pause_s is not None:
                        self._pause(pause_s)
                except StorageError as error:
                    agenda.stop(error)
                else:
                    agenda.done(number, outcome)
                    link.rest()
        except _StoppedError:
            return
        finally:
            link.close()

    def _link(self, agenda: Agenda, expectation: Expectation) -> AnyLink:
        if isinstance(self._client, DicomwebClient):
            return WebLink(self._client, self._around, agenda.card)
        return Link(self._client, self._settings, self._around, agenda.card, expectation)

    def _item(self, link: AnyLink, agenda: Agenda, number: int) -> Outcome:
        card = agenda.card
        item = card.items[number]
        studies = self._study_uids(link, item)
        if not studies:
            return Outcome(ItemState.MISSING, None, 0, NOT_FOUND)
        wanted: list[Wanted] = []
        for study in studies:
            answers = link.association().find(queries.series_of_study(study))
            wanted += [
                (study, series) for series in queries.read_series(answers, study) if _is_wanted(card, series)
            ]
        if not wanted:
            return Outcome(ItemState.MISSING, None, 0, NO_WANTED_SERIES)
        agenda.found(number, _sum([series.instances for _, series in wanted]))
        received = other_kinds = 0
        with self._lock:
            self._studies.took(len(studies), time.monotonic())
        totals: list[int | None] = []
        for study, series in wanted:
            self._keep_pace(link)
            came = link.retrieve(study, series)
            received, other_kinds = received + came.received, other_kinds + came.other_kinds
            totals.append(came.expected)
            with self._lock:
                self._instances.took(came.received, time.monotonic())
        expected = _sum(totals)
        if expected is not None and received < expected:
            return Outcome(ItemState.INCOMPLETE, expected, received, INCOMPLETE)
        return Outcome(ItemState.RETRIEVED, expected, received, OTHER_KINDS_LEFT if other_kinds else "")

    def _study_uids(self, link: AnyLink, item: JobItem) -> list[str]:
        if item.study_uid:
            return [item.study_uid]
        answers = link.association().find(queries.studies_by_accession(item.accession))
        return [study.study_uid for study in queries.read_studies(answers, accession=item.accession)]

    def _keep_pace(self, link: AnyLink) -> None:
        with self._lock:
            now = time.monotonic()
            wait_s = max(self._studies.wait_s(now), self._instances.wait_s(now))
        if wait_s > _IDLE_ASSOCIATION_S:
            link.close()
        self._pause(wait_s)
        self._wait_for_hours(link)

    def _wait_for_hours(self, link: AnyLink) -> None:
        hours, zone = self._settings.hours, self._around.zone
        while not is_open(hours, zone, now := self._around.clock()):
            link.close()
            until_s = (opens_at(hours, zone, now) - now).total_seconds()
            self._pause(min(until_s, _HOURS_LOOK_S))

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise _StoppedError


def _is_wanted(card: JobCard, series: FoundSeries) -> bool:
    fits = not card.modalities or series.modality in card.modalities
    return fits and (not card.body_part or series.body_part == card.body_part)


def _sum(counts: list[int | None]) -> int | None:
    return None if None in counts else sum(count or 0 for count in counts)
