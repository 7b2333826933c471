"""Keeps the volume cache to what a train may still be given: at every change of the catalogue, and once an hour.

A withdrawal ends runs and wipes their cohorts elsewhere (`station.runs.warm`); here it takes the patient's volumes out of
the cache. Made of what the catalogue says then, not of what changed: a look that was missed is made up for by the next.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from policies.policy import ConsentMode
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.catalogue.catalogue import Catalogue
from station.cohorts import VolumeCache
from station.runs.repository import STATION_ACTOR

log = logging.getLogger(__name__)

_EVERY = timedelta(hours=1)


class VolumeKeeper:
    """Looks after one cache.

    Args:
        cache: the station's volume cache.
        catalogue: what there is, and who consents.
        audit: where removals are recorded.
        modes: per collection, how its patients were asked.
        keep_for: how long a volume stays that no cohort asks for.
        clock: the station's.
    """

    def __init__(
        self,
        cache: VolumeCache,
        catalogue: Catalogue,
        audit: AuditLog,
        *,
        modes: Mapping[str, ConsentMode],
        keep_for: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._cache = cache
        self._catalogue = catalogue
        self._audit = audit
        self._modes = modes
        self._keep_for = keep_for
        self._clock = clock
        self._seen: tuple[int, datetime] | None = None

    def look(self) -> int:
        """Remove what may not be used any more and what nobody asked for in a long time; return how many volumes went.

        Raises:
            StorageError: a volume cannot be removed; the next look tries again.
        """
        sequence, now = self._catalogue.sequence(), self._clock()
        if self._seen is not None and self._seen[0] == sequence and now - self._seen[1] < _EVERY:
            return 0
        unusable = self._catalogue.no_longer_usable(self._cache.sources(), self._modes)
        purged = 0
        if unusable:
            try:
                self._audit.append(
                    AuditRecord(
                        event=AuditEvent.VOLUMES_PURGED, actor=STATION_ACTOR, numbers={"files": len(unusable)}
                    )
                )
            finally:
                # Data that nobody may use any more does not wait for an audit that cannot be written.
                purged = self._cache.purge(unusable)
        expired = self._cache.expire(now - self._keep_for)
        self._seen = sequence, now
        if purged or expired:
            log.info("volumes.removed", extra={"count": purged + expired})
        return purged + expired
