"""An association with the PACS for as long as a retrieval needs it, and what comes over it."""

import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass

from pydicom.dataset import Dataset

from station.intake.sources import queries
from station.intake.sources.journal import JobCard
from station.intake.sources.pacs_client import PacsAssociation, PacsClient
from station.intake.sources.pacs_faults import PacsError, PacsFault
from station.intake.sources.queries import FoundSeries
from station.intake.sources.reception import Cut, Expectation, Reception, Route
from station.intake.sources.surroundings import Surroundings
from station.intake.spool import SourceKind
from station.settings.dicom import PacsSettings

CUT = Cut(instances=1000, seconds=60.0)
_UIDS_AT_ONCE = 100
_FRUITLESS_IN_A_ROW = 16


@dataclass(frozen=True, slots=True)
class Came:
    """What came of one series.

    Attributes:
        received: instances in the spool.
        expected: instances of kinds that we take, as the PACS says; None where it does not.
        other_kinds: instances that we do not take.
    """

    received: int
    expected: int | None
    other_kinds: int


class Link:
    """An association that is made when it is needed, and what comes over it."""

    def __init__(
        self,
        client: PacsClient,
        settings: PacsSettings,
        surroundings: Surroundings,
        card: JobCard,
        expectation: Expectation,
    ) -> None:
        self._client = client
        self._settings = settings
        self._around = surroundings
        self._sop_classes = frozenset(client.sop_classes)
        self._route = Route(card.collection, SourceKind.C_GET, expectation)
        self._expectation = expectation
        self._stack = ExitStack()
        self._association: PacsAssociation | None = None
        self._reception: Reception | None = None

    def association(self) -> PacsAssociation:
        """Return the association, made anew where there is none.

        Raises:
            PacsError: there is none to be had.
        """
        if self._association is not None and self._association.alive:
            return self._association
        self.close()
        if self._settings.method == "c-get":
            reception = Reception(self._around.spool, self._route, self._around.sink, CUT)
            self._reception = reception
            self._stack.callback(reception.end)
            self._association = self._stack.enter_context(self._client.getting(reception.answer))
        else:
            self._association = self._stack.enter_context(self._client.asking())
        return self._association

    def retrieve(self, study_uid: str, series: FoundSeries) -> Came:
        """Retrieve one series.

        Where it comes short, because it holds instances of kinds that we do not take and the PACS gave up at the first of
        them, the others are asked for by their UIDs.

        Raises:
            PacsError: it refused, or the association was lost; what came until then is in the spool.
        """
        came, fault = self._transfer(
            queries.series_to_retrieve(study_uid, series.series_uid), series.series_uid
        )
        if fault is None and (series.instances is None or len(came) >= series.instances):
            return Came(len(came), series.instances, other_kinds=0)
        kinds = self._kinds(study_uid, series.series_uid)
        wanted = {uid for uid, kind in kinds.items() if not kind or kind in self._sop_classes}
        came |= self._one_by_one(study_uid, series.series_uid, sorted(wanted - came))
        if not came and fault is not None:
            raise PacsError(fault)
        # A PACS that lists fewer than it counted has lost some, or does not tell.
        untold = max(0, (series.instances or 0) - len(kinds))
        return Came(len(came), len(wanted) + untold, other_kinds=len(kinds) - len(wanted))

    def _kinds(self, study_uid: str, series_uid: str) -> dict[str, str]:
        """Return the SOP Class of each instance of a series, empty where the PACS does not say."""
        for kinds in (True, False):
            identifier = queries.instances_of_series(study_uid, series_uid, kinds=kinds)
            try:
                return queries.read_instances(self.association().find(identifier), series_uid)
            except PacsError as error:
                # The SOP Class is a key that a PACS need not support; some look it up in a file that they have lost.
                if not kinds or error.fault is not PacsFault.FAILED:
                    raise
        return {}

    def _one_by_one(self, study_uid: str, series_uid: str, uids: list[str]) -> frozenset[str]:
        """Retrieve instances by their UIDs; what fails together is asked for in halves, until too much of it is fruitless."""
        came: frozenset[str] = frozenset()
        parts = deque(uids[start : start + _UIDS_AT_ONCE] for start in range(0, len(uids), _UIDS_AT_ONCE))
        fruitless = 0
        while parts and fruitless < _FRUITLESS_IN_A_ROW:
            part = parts.popleft()
            more, _ = self._transfer(queries.instances_to_retrieve(study_uid, series_uid, part), series_uid)
            came |= more
            fruitless = 0 if more else fruitless + 1
            left = [uid for uid in part if uid not in more]
            if left and len(part) > 1:
                half = (len(left) + 1) // 2
                parts.extend(piece for piece in (left[:half], left[half:]) if piece)
        return came

    def _transfer(self, identifier: Dataset, series_uid: str) -> tuple[frozenset[str], PacsFault | None]:
        association = self.association()
        self._expectation.expect(series_uid)
        fault = None
        try:
            if self._settings.method == "c-get":
                failed = association.get(identifier).failed
            else:
                failed = association.move(identifier, self._settings.destination).failed
            fault = PacsFault.FAILED if failed else None
        except PacsError as error:
            # Some PACS answer so when a single instance could not be sent.
            if error.fault is not PacsFault.FAILED:
                raise
            fault = error.fault
        finally:
            came = self._expectation.end(series_uid)
        return came, fault

    def rest(self) -> None:
        """Between two items: pass on what has waited long enough."""
        if self._reception is not None:
            self._reception.cut_if_old(time.monotonic())

    def close(self) -> None:
        """Release the association and pass on what came."""
        self._association = self._reception = None
        self._stack.close()
