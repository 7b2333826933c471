"""How long intake keeps what, enforced by a sweep that says in the audit how many of each kind it removed.

Identified files in the spool have no term: they go when their batch is done, each copy read again from the disk before its
outcome is recorded. What a term ends here: quarantine, batches that nobody claimed, pseudonymised files that no instance
names any more, and what a worker left half written.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from station.handover import instance_path
from station.intake import spool
from station.intake.audit import IntakeEvent, record
from station.intake.books import Books
from station.intake.outcomes import FileOutcome
from station.intake.paths import IntakePaths
from station.intake.schema import BatchRow, FileRow, InstanceRow, RemovedRow
from station.intake.settings import IntakeRetention
from station.storage.files import remove_durably, storage_fault

_HALF_WRITTEN_S = 3600.0


@dataclass(frozen=True, slots=True)
class Swept:
    """How many of each kind a sweep removed."""

    quarantined: int = 0
    unclaimed_batches: int = 0
    removed_instances: int = 0
    backups: int = 0
    half_written: int = 0

    @property
    def any(self) -> bool:
        """Whether anything was removed."""
        return self.total > 0

    @property
    def total(self) -> int:
        """How many in all."""
        return sum(asdict(self).values())


class RetentionDesk:
    """Enforces intake's terms.

    Args:
        paths: intake's folders.
        books: intake's books.
        terms: how long each kind stays.
    """

    def __init__(self, paths: IntakePaths, books: Books, terms: IntakeRetention) -> None:
        self._paths = paths
        self._books = books
        self._terms = terms

    def every(self) -> timedelta:
        """Return how long to wait between sweeps: a tenth of the shortest term, and a day at most."""
        shortest = min(self._terms.quarantine, self._terms.unclaimed, self._terms.removed)
        return max(timedelta(minutes=1), min(timedelta(days=1), shortest / 10))

    def sweep(self) -> Swept:
        """Remove what is over its term; again is harmless.

        Recorded first, removed after: what a crash leaves goes with the next sweep.

        Raises:
            StorageError: something cannot be removed.
        """
        now = self._books.clock()
        with self._books.database.write() as session:
            expired = self._expire(session, now)
            gone = self._forget_removed(session, now)
            unclaimed = self._unclaimed(session, now)
            backups = self._old_backups(now)
            swept = Swept(len(expired), len(unclaimed), len(gone), len(backups))
            if swept.any:
                record(session, IntakeEvent.RETENTION_ENFORCED, {**asdict(swept)}, now=now)
        for name in expired:
            for path in self._paths.quarantine.glob(f"*/{name}"):
                remove_durably(path)
        for file in gone:
            remove_durably(instance_path(self._paths.handover, file))
        for name in unclaimed:
            _remove_tree(self._paths.spool / name)
        for path in backups:
            remove_durably(path)
        return replace(swept, half_written=self._half_written())

    def _old_backups(self, now: datetime) -> list[Path]:
        if not self._paths.backups.is_dir():
            return []
        limit = (now - self._terms.backups).timestamp()
        return [
            path
            for path in self._paths.backups.iterdir()
            if path.is_file() and path.lstat().st_ctime <= limit
        ]

    def _expire(self, session: Session, now: datetime) -> list[str]:
        limit = now - self._terms.quarantine
        rows = session.scalars(
            select(FileRow).where(
                FileRow.outcome == FileOutcome.QUARANTINED.value, FileRow.decided_at <= limit
            )
        ).all()
        for row in rows:
            row.outcome, row.decided_at = FileOutcome.EXPIRED.value, now
        return [f"{row.batch}-{row.name}" for row in rows]

    def _forget_removed(self, session: Session, now: datetime) -> list[str]:
        """Return the files that no instance names since their term; that they were removed stays known."""
        rows = session.scalars(
            select(RemovedRow).where(
                RemovedRow.file.is_not(None), RemovedRow.removed_at <= now - self._terms.removed
            )
        ).all()
        files: list[str] = []
        for row in rows:
            still_named = session.scalar(
                select(InstanceRow.file).where(InstanceRow.file == row.file).limit(1)
            )
            if row.file is not None and still_named is None:
                files.append(row.file)
            row.file = None
        return files

    def _unclaimed(self, session: Session, now: datetime) -> list[str]:
        known = set(session.scalars(select(BatchRow.id)))
        return [
            batch.name
            for batch in spool.batches(self._paths.spool)
            if batch.name not in known and batch.card.received_at <= now - self._terms.unclaimed
        ]

    def _half_written(self) -> int:
        removed = 0
        for path in _temporary_files(self._paths.handover / "instances"):
            # By the disk's clock: it is the one that stamped the file.
            if time.time() - path.lstat().st_mtime > _HALF_WRITTEN_S:
                remove_durably(path)
                removed += 1
        return removed


def _temporary_files(folder: Path) -> Iterator[Path]:
    yield from folder.glob("*/.*.dcm.*")


def _remove_tree(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_fault(error, "spool") from error
