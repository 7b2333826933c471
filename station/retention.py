"""How long compute keeps what, enforced by a look that says in the audit how many of each kind went.

Cohorts that no run holds, arrays of releases, and backups. The volume cache looks after itself (`station.runs.volumes`), intake
after what is identified (`station.intake.retention`).

A release's reply and arrays stay for the hospital's term, so that a repeated instruction gets the same bytes; after it the release is
purged: its row, its digests, its counters and its entry in the ledger stay, and who asks again is refused. Ledger and audit are never
removed. Which patients a figure counted stays for a term of its own (`station.egress.differencing`).
"""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.catalogue.tables import Instance
from station.cohorts import wipe
from station.cohorts.frozen import DATA
from station.egress.differencing.differences import Differences
from station.egress.records.releases import arrays_name, sweep_arrays
from station.egress.records.tables import CounterRow, ReleaseRow
from station.runs.repository import STATION_ACTOR
from station.runs.states import TERMINAL
from station.runs.tables import OrderRow
from station.steady import SteadyClock
from station.storage.database import Database
from station.storage.files import remove_durably

log = logging.getLogger("station.compute")

EVERY = timedelta(hours=1)
BEFORE_PURGES: Final = "releases-before-purges"
"""The counter that migration 0011 sets: the ledger's last entry of a release whose arrays the earlier retention may have removed."""


@dataclass(frozen=True, slots=True)
class ComputeTerms:
    """How long each kind stays."""

    cohorts: timedelta
    released: timedelta
    backups: timedelta
    differences: timedelta | None = None


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
        clock: tells the time; what it leaps is not believed at once.
        differences: which patients earlier figures counted.
        monotonic: the clock that nobody sets.
    """

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        places: Places,
        terms: ComputeTerms,
        held: Callable[[], Collection[Path]],
        clock: Callable[[], datetime],
        differences: Differences | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._audit = audit
        self._places = places
        self._terms = terms
        self._held = held
        self._clock = SteadyClock(clock, monotonic)
        self._differences = differences
        self._looked: datetime | None = None

    def look(self) -> int:
        """Remove what is over its term; returns how many things went.

        Raises:
            StorageError: something cannot be removed, or the audit cannot be written; the next look tries again.
        """
        now = self._clock()
        if self._looked is not None and abs(now - self._looked) < EVERY:
            return 0
        cohorts = self._idle_cohorts(now - self._terms.cohorts)
        released = self._due_releases(now - self._terms.released)
        released += self._gone_before(released)
        backups = _older(self._places.backups, now - self._terms.backups)
        count = len(cohorts) + len(released) + len(backups)
        if count:
            # Recorded first (I6): what a crash leaves goes with the next look.
            numbers = {"cohorts": len(cohorts), "released": len(released), "backups": len(backups)}
            self._audit.append(
                AuditRecord(event=AuditEvent.RETENTION_ENFORCED, actor=STATION_ACTOR, numbers=numbers),
                lambda session: _purge(session, released, now),
            )
            log.info("retention.enforced", extra={"count": count})
        # Arrays by their own records, also those that an earlier look could not remove; the others are due again.
        sweep_arrays(self._database, self._places.releases)
        for folder in cohorts:
            wipe(folder / DATA)
        for path in backups:
            remove_durably(path)
        count += self._old_differences(now)
        self._looked = now
        return count

    def _old_differences(self, now: datetime) -> int:
        """Remove figures over their term, and pseudonyms of whom nothing is here any more; the sets keep their numbers."""
        if self._differences is None:
            return 0
        term = self._terms.differences

        def note(session: Session, figures: int, pseudonyms: int) -> None:
            numbers = {"differences": figures, "pseudonyms": pseudonyms}
            self._audit.append_in(
                session,
                AuditRecord(event=AuditEvent.RETENTION_ENFORCED, actor=STATION_ACTOR, numbers=numbers),
            )

        def here(session: Session) -> set[str]:
            return set(session.scalars(select(Instance.patient).distinct()))

        return sum(self._differences.forget(None if term is None else now - term, here, note))

    def _idle_cohorts(self, before: datetime) -> list[Path]:
        if not self._places.cohorts.is_dir():
            return []
        held = {path.parent for path in self._held()}
        return [
            folder
            for folder in sorted(self._places.cohorts.iterdir())
            if folder.is_dir() and folder not in held and _changed(folder) <= before
        ]

    def _due_releases(self, before: datetime) -> list[ReleaseRow]:
        """Return the releases that were made before the term and are still whole."""
        query = select(ReleaseRow).where(ReleaseRow.recorded <= before, ReleaseRow.purged.is_(None))
        with self._database.read() as session:
            return list(session.scalars(query.order_by(ReleaseRow.ledger_seq)))

    def _gone_before(self, besides: list[ReleaseRow]) -> list[ReleaseRow]:
        """Return the releases of ended orders that lost their arrays to the retention there was before releases were purged.

        Nothing said so in their rows. What was recorded since then and lacks its file is damage, and stays an error.
        """
        query = (
            select(ReleaseRow)
            .join(OrderRow, OrderRow.order_digest == ReleaseRow.order_digest)
            .where(
                ReleaseRow.ledger_seq
                <= select(CounterRow.value).where(CounterRow.name == BEFORE_PURGES).scalar_subquery(),
                ReleaseRow.purged.is_(None),
                ReleaseRow.arrays_digest.is_not(None),
                OrderRow.state.in_([state.value for state in TERMINAL]),
            )
        )
        known = {row.ledger_seq for row in besides}
        with self._database.read() as session:
            rows = [row for row in session.scalars(query) if row.ledger_seq not in known]
        return [row for row in rows if not self._arrays_of(row).exists()]

    def _arrays_of(self, row: ReleaseRow) -> Path:
        return self._places.releases / arrays_name(row.order_digest, row.round, row.stage)


def _purge(session: Session, releases: list[ReleaseRow], now: datetime) -> None:
    """Let replies go; what a crash leaves of arrays after this, the next sweep removes."""
    for row in releases:
        session.execute(
            update(ReleaseRow)
            .where(
                ReleaseRow.order_digest == row.order_digest,
                ReleaseRow.round == row.round,
                ReleaseRow.stage == row.stage,
            )
            .values(reply=b"", purged=now)
        )


def _older(folder: Path, before: datetime) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if path.is_file() and _changed(path) <= before]


def _changed(path: Path) -> datetime:
    # Not when it says it was modified: a cohort's files carry a date of their own.
    return datetime.fromtimestamp(path.lstat().st_ctime, UTC)
