"""Keeps the folder of predictions to what may be there: at the start, at every change of the catalogue, and once an hour.

A withdrawal takes away what was marked and measured in that patient's images (I7); so does an image that was removed or replaced, a patient
who was merged into another, and the hospital's term. Made of what the catalogue says then, not of what changed.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from policies.errors import StorageError
from policies.policy import ConsentMode, ConsentPurpose
from station.audit.events import AuditEvent, AuditRecord
from station.catalogue.catalogue import Catalogue
from station.predictions.book import PredictionBook, Why
from station.predictions.folder import PredictionFolder
from station.predictions.tables import PredictionRow

log = logging.getLogger(__name__)

_EVERY: Final = timedelta(hours=1)
_ACTOR: Final = "station:compute"


class PredictionKeeper:
    """Looks after one folder.

    Args:
        book: what is on record.
        folder: where it lies.
        catalogue: what there is, and who consents.
        modes: per collection, how its patients were asked.
        keep_for: how long an object stays.
        clock: the station's.
    """

    def __init__(
        self,
        book: PredictionBook,
        folder: PredictionFolder,
        catalogue: Catalogue,
        *,
        modes: Mapping[str, ConsentMode],
        keep_for: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._book = book
        self._folder = folder
        self._catalogue = catalogue
        self._modes = modes
        self._keep_for = keep_for
        self._clock = clock
        self._seen: tuple[int, int, datetime] | None = None

    def recover(self) -> int:
        """After a start: what was recorded is put in its place, what was not is removed. Before anything is asked of a train.

        Returns:
            How many that were recorded are not there any more.

        Raises:
            StorageError: the folder is not there, or cannot be written; nothing of the record changes then.
        """
        there = self._book.there()
        self._folder.sweep({row.file for row in there})
        lost = [row.number for row in there if not self._folder.keep(row.file)]
        if lost:
            self._book.note(_removed(lost=len(lost)))
            self._book.gone(lost, "lost", self._clock())
        return len(lost)

    def look(self) -> int:
        """Remove what may not be there any more; return how many objects went.

        Raises:
            StorageError: one cannot be removed, or the folder is not there; the next look tries again.
        """
        now = self._clock()
        state = (self._catalogue.sequence(), self._book.last())
        if self._seen is not None and self._seen[:2] == state and now - self._seen[2] < _EVERY:
            return 0
        there = self._book.there()
        withdrawn = self._withdrawn(there)
        old = [row for row in there if row.kept <= now - self._keep_for and row.number not in withdrawn]
        if withdrawn or old:
            try:
                self._book.note(_removed(withdrawn=len(withdrawn), term=len(old)))
            finally:
                # What nobody may keep any more does not wait for an audit that cannot be written.
                try:
                    self._remove([row for row in there if row.number in withdrawn], "withdrawn", now)
                finally:
                    self._remove(old, "term", now)
            log.info("predictions.removed", extra={"count": len(withdrawn) + len(old)})
        self._seen = (*state, now)
        return len(withdrawn) + len(old)

    def _withdrawn(self, there: list[PredictionRow]) -> set[int]:
        """Return which objects lie on a file that may not be used any more for the purposes they were made for."""
        by_purposes: dict[str, list[PredictionRow]] = defaultdict(list)
        for row in there:
            by_purposes[row.purposes].append(row)
        found: set[int] = set()
        for purposes, rows in by_purposes.items():
            asked = tuple(ConsentPurpose(word) for word in purposes.split())
            files = {digest for row in rows for digest in row.sources}
            unusable = self._catalogue.no_longer_usable(files, self._modes, asked)
            found |= {row.number for row in rows if not unusable.isdisjoint(row.sources)}
        return found

    def _remove(self, rows: list[PredictionRow], why: Why, now: datetime) -> None:
        gone: list[int] = []
        fault: StorageError | None = None
        for row in rows:
            try:
                self._folder.remove(row.file)
            except StorageError as error:
                # One that cannot be removed keeps no other in its place.
                fault = error
            else:
                gone.append(row.number)
        # Said when they are gone: what a crash leaves in between, the next look removes.
        if gone:
            self._book.gone(gone, why, now)
        if fault is not None:
            raise fault


def _removed(**numbers: int) -> AuditRecord:
    return AuditRecord(event=AuditEvent.PREDICTIONS_REMOVED, actor=_ACTOR, numbers=numbers)
