"""Batches: accepted for a collection, processed to their end, and handed over with what they make due."""

import threading
from collections.abc import Callable

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from policies.documents import Name
from policies.errors import NotFoundError, StateError, UsageError
from station.handover import InstanceRecord, InstancesContent
from station.intake import outbox, spool
from station.intake.audit import IntakeEvent, record
from station.intake.books import Books
from station.intake.clinical.labels.desk import is_segmentation
from station.intake.outcomes import BatchReport, Progress
from station.intake.paths import IntakePaths
from station.intake.processing import process
from station.intake.recording import batch_report, finish_batch, start_batch
from station.intake.schema import BatchRow, InstanceRow
from station.intake.settings import IntakeSettings
from station.intake.workforce import Workforce


class BatchDesk:
    """The batches of an intake; one is processed at a time.

    Args:
        paths: intake's folders.
        settings: which collections there are.
        books: intake's books.
        workforce: the workers that meet the files.
        also_due: puts in the outbox, in the transaction that finishes a batch, what its patients and studies make due.
    """

    def __init__(
        self,
        paths: IntakePaths,
        settings: IntakeSettings,
        books: Books,
        workforce: Workforce,
        also_due: Callable[[Session], None],
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._books = books
        self._workforce = workforce
        self._also_due = also_due
        # A consent import need not wait for a batch.
        self._processing = threading.Lock()
        self._accepting = threading.Lock()
        self._on_accepted: Callable[[str], None] | None = None

    def close(self) -> None:
        """Wait until nothing is being processed."""
        with self._processing, self._accepting:
            self._workforce.close()

    def require_collection(self, collection: str) -> None:
        """Refuse a collection that is not one of this station.

        Raises:
            UsageError: it is not.
        """
        if not self._offers(collection):
            raise UsageError(
                "there is no such collection here", hint="Name one of [[collections]] in station.toml."
            )

    def accept(self, name: str, collection: Name) -> BatchReport:
        """Say which collection a spooled batch belongs to; from now on it is processed to its end.

        Raises:
            NotFoundError: there is no such batch.
            UsageError: the collection is not one of this station, or another than was said before.
        """
        self.require_collection(collection)
        with self._accepting:
            known = self.report(name)
            if known is not None:
                if known.collection != collection:
                    raise UsageError("the batch was accepted for another collection")
                return known
            batch = spool.open_batch(self._paths.spool, name)
            if batch.card.collection not in {None, collection}:
                raise UsageError("the batch came for another collection")
            fields: dict[str, str | int] = {
                "batch": name, "collection": collection, "files": batch.card.files, "source": batch.card.source.value,
            }  # fmt: skip
            with self._books.database.write() as session:
                start_batch(session, batch, collection)
                record(session, IntakeEvent.BATCH_RECEIVED, fields, now=self._books.clock())
            return self._known(name)

    def received(self, batch: spool.StagedBatch) -> BatchReport | None:
        """Take up a batch whose card names its collection, and have it processed soon; None where it must be told.

        Raises:
            UsageError: its collection is not one of this station.
        """
        if batch.card.collection is None:
            return None
        report = self.accept(batch.name, batch.card.collection)
        if report.finished_at is None and self._on_accepted is not None:
            self._on_accepted(batch.name)
        return report

    def when_accepted(self, work: Callable[[str], None]) -> None:
        """Say who processes batches that `received` took up."""
        self._on_accepted = work

    def process(self, name: str, progress: Progress) -> BatchReport:
        """Process one accepted batch to its end, and hand over what it brought.

        An error that `progress` raises stops the work between two files; the batch goes on where it stopped when it is
        processed again.

        Raises:
            NotFoundError: the batch was not accepted.
            StorageError: the disk is full.
            UnavailableError: no worker can be started.
        """
        with self._processing:
            known = self.report(name)
            if known is None:
                raise NotFoundError(
                    "the batch was not accepted", hint="Say which collection it belongs to first."
                )
            if known.finished_at is None:
                batch = spool.open_batch(self._paths.spool, name)
                with self._workforce.pool() as pool:
                    process(self._paths, self._books, pool, batch, known.collection, progress)
                known = self._finish(name)
            self._books.flush()
            spool.remove_batch(self._paths.spool, name)
            return known

    def recover(self) -> list[str]:
        """Hand over what an earlier process decided; returns the accepted batches that are still to be processed.

        A batch whose card names a collection of this station is accepted here.
        """
        self._books.flush()
        spool.recover_incomplete(self._paths.spool)
        with self._books.database.read() as session:
            known = set(session.scalars(select(BatchRow.id)))
        for batch in spool.batches(self._paths.spool):
            collection = batch.card.collection
            # One for a collection that is offered no more waits for the operator.
            if batch.name not in known and collection is not None and self._offers(collection):
                self.accept(batch.name, collection)
                known.add(batch.name)
        return [batch.name for batch in spool.batches(self._paths.spool) if batch.name in known]

    def report(self, name: str) -> BatchReport | None:
        """Return how far a batch is, or None where it is not known."""
        with self._books.database.read() as session:
            return batch_report(session, name)

    def reports(self) -> list[BatchReport]:
        """Return every batch, oldest first."""
        with self._books.database.read() as session:
            # Cards tell whole seconds: of one second, the order in which they were accepted.
            names = session.scalars(select(BatchRow.id).order_by(BatchRow.received_at, text("rowid")))
            return [report for name in names if (report := batch_report(session, name)) is not None]

    def _offers(self, collection: str) -> bool:
        offered = self._settings.collections
        return offered is None or collection in offered

    def _known(self, name: str) -> BatchReport:
        report = self.report(name)
        if report is None:
            raise StateError("intake: a record that was just written is not there")
        return report

    def _finish(self, name: str) -> BatchReport:
        with self._books.decide() as session:
            self._hand_over(session)
            finish_batch(session, name, self._books.clock())
            session.flush()
            report = batch_report(session, name)
            if report is not None:
                counts: dict[str, str | int] = {
                    "batch": name,
                    "accepted": report.accepted,
                    "duplicates": report.duplicates,
                    "quarantined": sum(report.quarantined.values()),
                }
                record(session, IntakeEvent.BATCH_FINISHED, counts, now=self._books.clock())
        return self._known(name)

    def _hand_over(self, session: Session) -> None:
        """Put new images in the outbox, then what their patients and studies make due."""
        now = self._books.clock()
        new = session.scalars(select(InstanceRow).where(InstanceRow.outbox.is_(None)))
        # A segmentation is a mask, not an image: it goes when its series is here (`_also_due`).
        rows = [row for row in new if not is_segmentation(row)]
        size = self._settings.instances_per_entry
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            instances = tuple(InstanceRecord.model_validate(row.record) for row in part)
            entry = outbox.enqueue(session, InstancesContent(instances=instances), len(part), now=now)
            for row in part:
                row.outbox = entry
        self._also_due(session)
