"""How long compute keeps what, enforced by a look that says in the audit how many of each kind went.

Cohorts that no run holds, arrays of releases, and backups. The volume cache looks after itself (`station.runs.volumes`), intake
after what is identified (`station.intake.retention`).

A release's arrays stay as long as its order may ask for them: the term begins when the order's run is over, and counts only
for an order that is spent. The recorded reply, the ledger and the audit are never removed.
"""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.cohorts import wipe
from station.cohorts.frozen import DATA
from station.egress.records.tables import ReleaseRow
from station.runs.repository import STATION_ACTOR
from station.runs.states import TERMINAL
from station.runs.tables import OrderRow
from station.storage.database import Database
from station.storage.files import remove_durably

log = logging.getLogger("station.compute")

EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class ComputeTerms:
    """How long each kind stays."""

    cohorts: timedelta
    released: timedelta
    backups: timedelta


@dataclass(frozen=True, slots=True)
class Places:
    """Where the kinds lie."""

    cohorts: Path
    releases: Path
    backups: Path


class ComputeRetention:
    """Enforces compute's terms, once an hour at most.

    Args:
        database: the station's compute database.
        audit: the station's audit log.
        places: where the kinds lie.
        terms: how long each stays.
        held: returns the cohorts' data folders that a run holds now.
        clock: tells the time.
    """

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        places: Places,
        terms: ComputeTerms,
        held: Callable[[], Collection[Path]],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._audit = audit
        self._places = places
        self._terms = terms
        self._held = held
        self._clock = clock
        self._looked: datetime | None = None

    def look(self) -> int:
        """Remove what is over its term; returns how many things went.

        Raises:
            StorageError: something cannot be removed, or the audit cannot be written; the next look tries again.
        """
        now = self._clock()
        if self._looked is not None and now - self._looked < EVERY:
            return 0
        cohorts = self._idle_cohorts(now - self._terms.cohorts)
        arrays = self._spent_arrays(now - self._terms.released)
        backups = _older(self._places.backups, now - self._terms.backups)
        count = len(cohorts) + len(arrays) + len(backups)
        if count:
            # Recorded first (I6): what a crash leaves goes with the next look.
            numbers = {"cohorts": len(cohorts), "released": len(arrays), "backups": len(backups)}
            self._audit.append(
                AuditRecord(event=AuditEvent.RETENTION_ENFORCED, actor=STATION_ACTOR, numbers=numbers)
            )
            for folder in cohorts:
                wipe(folder / DATA)
            for path in (*arrays, *backups):
                remove_durably(path)
            log.info("retention.enforced", extra={"count": count})
        self._looked = now
        return count

    def _idle_cohorts(self, before: datetime) -> list[Path]:
        if not self._places.cohorts.is_dir():
            return []
        held = {path.parent for path in self._held()}
        return [
            folder
            for folder in sorted(self._places.cohorts.iterdir())
            if folder.is_dir() and folder not in held and _changed(folder) <= before
        ]

    def _spent_arrays(self, before: datetime) -> list[Path]:
        """Return the arrays of orders that are spent since before the term."""
        spent = {state.value for state in TERMINAL}
        with self._database.read() as session:
            orders = session.scalars(
                select(OrderRow.order_digest)
                .join(ReleaseRow, ReleaseRow.order_digest == OrderRow.order_digest)
                .where(
                    OrderRow.state.in_(spent),
                    OrderRow.changed <= before,
                    ReleaseRow.arrays_digest.is_not(None),
                )
                .distinct()
            ).all()
        if not self._places.releases.is_dir():
            return []
        prefixes = tuple(order.removeprefix("sha256:") + "-" for order in orders)
        return [
            path
            for path in sorted(self._places.releases.iterdir())
            if prefixes and path.name.startswith(prefixes)
        ]


def _older(folder: Path, before: datetime) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if path.is_file() and _changed(path) <= before]


def _changed(path: Path) -> datetime:
    # Not when it says it was modified: a cohort's files carry a date of their own.
    return datetime.fromtimestamp(path.lstat().st_ctime, UTC)
