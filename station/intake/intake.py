"""Intake as a library: what the service, the command line, the demo and tests call.

One process at a time: a lock on intake's folder says so. Holds the pseudonym key and everything identified; what
compute may know leaves through the handover only (I9).
"""

import fcntl
import os
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from policies.documents import Name
from policies.errors import DataError, NotFoundError, StateError, UsageError
from policies.profiles import DEFAULT_PROFILE
from station.handover import HandoverLog, InstanceRecord, InstancesContent
from station.intake import outbox, removals, spool
from station.intake.audit import IntakeEvent, record
from station.intake.books import Books
from station.intake.clinical.desk import ClinicalDesk, ClinicalReport, ImportOrder
from station.intake.consent import register as consent_register
from station.intake.consent.desk import ConsentDesk, RegisterFormat
from station.intake.consent.usage import UsageDesk
from station.intake.csv_reader import MAX_CSV_BYTES
from station.intake.installation import MIGRATIONS, load_handover_key
from station.intake.outcomes import (
    BatchReport,
    ConsentReport,
    FileOutcome,
    IntakeStatus,
    Progress,
)
from station.intake.paths import IntakePaths
from station.intake.processing import process
from station.intake.recording import batch_report, finish_batch, start_batch
from station.intake.schema import BatchRow, FileRow, InstanceRow, PatientRow, StudyRow
from station.intake.settings import IntakeSettings
from station.intake.staging import stage_into
from station.intake.workforce import make_pool
from station.pseudonymisation.engine import Pseudonymiser
from station.pseudonymisation.keys import PseudonymKey
from station.pseudonymisation.reading import quiet_pydicom
from station.storage.database import open_database

_T = TypeVar("_T")


def _now() -> datetime:
    return datetime.now(UTC)


def _nobody(name: str) -> None:
    """The caller processes what it takes up."""


def _no_progress(done: int, total: int) -> None:
    """Say nothing."""


class Intake:
    """The hospital side of the data. Close it, or use it as a context manager.

    Args:
        paths: intake's folders, made by `init_intake`.
        settings: how intake works.
        clock: tells the time.

    Raises:
        StateError: another process works on this intake, or a key or the database is damaged.
    """

    def __init__(
        self,
        paths: IntakePaths,
        settings: IntakeSettings | None = None,
        *,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._paths = paths
        self._settings = settings or IntakeSettings()
        self._clock = clock
        # One batch at a time; a consent import need not wait for it.
        self._processing = threading.Lock()
        self._batch_lock = threading.Lock()
        self._on_accepted: Callable[[str], None] = _nobody
        self._lock = _sole_process(paths.root)
        try:
            key = PseudonymKey.load(paths.pseudonym_key)
            self._key = (key.key_id, key.version)
            log = HandoverLog(paths.handover, load_handover_key(paths))
            self._books = Books(open_database(paths.database, MIGRATIONS), log, clock)
        except BaseException:
            os.close(self._lock)
            raise
        self._database, self._outbox_lock = self._books.database, self._books.lock
        self.consent = ConsentDesk(self._books, self._settings.consent)
        self.usage = UsageDesk(self._books, paths.card)
        self.clinical = ClinicalDesk(self._books, key.for_project(self._settings.project))
        quiet_pydicom()
        pseudonymiser = Pseudonymiser(key, self._settings.project, self._settings.default_issuer)
        self._pseudonymiser = pseudonymiser
        self._pool = make_pool(paths, self._settings, key, {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database and of the lock."""
        with self._processing, self._batch_lock, self._outbox_lock:
            self._pool.close()
            self._database.close()
            os.close(self._lock)

    def import_folder(self, source: Path, collection: Name, progress: Progress = _no_progress) -> BatchReport:
        """Stage a folder into the spool and process it; again is idempotent.

        Raises:
            NotFoundError: the source is not a folder.
            DataError: it holds no files.
            UsageError: the collection is not one of this station.
            StorageError: the disk is full; what was done stays done.
        """
        self._require_collection(collection)
        batch = stage_into(self._paths.spool, source)
        self.accept_batch(batch.name, collection)
        return self.process_batch(batch.name, progress)

    def accept_batch(self, name: str, collection: Name) -> BatchReport:
        """Say which collection a spooled batch belongs to; from now on it is processed to its end.

        Raises:
            NotFoundError: there is no such batch.
            UsageError: the collection is not one of this station, or another than was said before.
        """
        self._require_collection(collection)
        with self._batch_lock:
            known = self.batch(name)
            if known is not None:
                if known.collection != collection:
                    raise UsageError("the batch was accepted for another collection")
                return known
            batch = spool.open_batch(self._paths.spool, name)
            fields: dict[str, str | int] = {
                "batch": name,
                "collection": collection,
                "files": batch.card.files,
            }
            with self._database.write() as session:
                start_batch(session, batch, collection)
                record(session, IntakeEvent.BATCH_RECEIVED, fields, now=self._clock())
            return _required(self.batch(name))

    def received(self, batch: spool.StagedBatch) -> BatchReport | None:
        """Take up a batch whose card names its collection, and have it processed soon; None where it must be told.

        Raises:
            UsageError: its collection is not one of this station.
        """
        if batch.card.collection is None:
            return None
        report = self.accept_batch(batch.name, batch.card.collection)
        if report.finished_at is None:
            self._on_accepted(batch.name)
        return report

    def when_accepted(self, work: Callable[[str], None]) -> None:
        """Say who processes batches that `received` took up."""
        self._on_accepted = work

    def process_batch(self, name: str, progress: Progress = _no_progress) -> BatchReport:
        """Process one accepted batch to its end, and hand over what it brought.

        An error that `progress` raises stops the work between two files; the batch goes on where it stopped when it is
        processed again.

        Raises:
            NotFoundError: the batch was not accepted.
            StorageError: the disk is full.
        """
        with self._processing:
            known = self.batch(name)
            if known is None:
                raise NotFoundError(
                    "the batch was not accepted", hint="Say which collection it belongs to first."
                )
            if known.finished_at is None:
                batch = spool.open_batch(self._paths.spool, name)
                process(self._paths, self._books, self._pool, batch, known.collection, progress)
                known = self._finish(name)
            self.flush()
            spool.remove_batch(self._paths.spool, name)
            return known

    def recover(self) -> list[str]:
        """Hand over what an earlier process decided; returns the accepted batches that are still to be processed.

        A batch whose card names a collection of this station is accepted here.
        """
        self.flush()
        spool.recover_incomplete(self._paths.spool)
        self._accept_addressed()
        with self._database.read() as session:
            accepted = set(session.scalars(select(BatchRow.id)))
        return [batch.name for batch in spool.batches(self._paths.spool) if batch.name in accepted]

    def _accept_addressed(self) -> None:
        with self._database.read() as session:
            known = set(session.scalars(select(BatchRow.id)))
        for batch in spool.batches(self._paths.spool):
            collection = batch.card.collection
            # One for a collection that is offered no more waits for the operator.
            if batch.name not in known and collection is not None and self._offers(collection):
                self.accept_batch(batch.name, collection)

    def remove_instances(
        self, sop_instance_uids: Iterable[str], reason: removals.RemovalReason, *, expected: bool = False
    ) -> int:
        """Remove instances that were rejected or deleted at their source; returns how many were held.

        Args:
            sop_instance_uids: as the source knows them.
            reason: why.
            expected: whether one that is not held yet is to be kept out when it comes.
        """
        return self.remove_held(map(self.remap_uid, sop_instance_uids), reason, expected=expected)

    def remove_held(
        self, sop_instance_uids: Iterable[str], reason: removals.RemovalReason, *, expected: bool = False
    ) -> int:
        """As `remove_instances`, by their pseudonymous UIDs, such as `held` returns."""
        return removals.remove(self._books, sop_instance_uids, reason, expected=expected)

    def held(self, collection: Name) -> list[removals.HeldStudy]:
        """Return what a collection holds, study by study, for comparing with its source."""
        with self._database.read() as session:
            return removals.held(session, collection)

    def remap_uid(self, uid: str) -> str:
        """Return what a UID of the source is here."""
        return self._pseudonymiser.remap_uid(uid)

    def import_consent(self, source: Path | bytes, *, source_date: datetime | None = None) -> ConsentReport:
        """Import the hospital's consent register and hand over the new state.

        Args:
            source: the CSV file or its bytes.
            source_date: the moment the register was read at its source; now unless told. Its age is checked by
                rule at compute (I7).

        Raises:
            CsvError: naming line and column; nothing is imported.
        """
        return self.consent.import_register(_bytes_of(source), RegisterFormat.CSV, source_date=source_date)

    def import_clinical(
        self, source: Path | bytes, collection: Name, *, profile: str = DEFAULT_PROFILE
    ) -> ClinicalReport:
        """Import an eCRF export in the plain format; rows whose study is not here yet wait for it.

        Raises:
            CsvError: naming line and column; nothing is imported.
            NotFoundError: there is no such profile.
            UsageError: the collection is not one of this station.
        """
        return self.order_clinical(_bytes_of(source), collection, ImportOrder(profile=profile))

    def order_clinical(self, data: bytes, collection: Name, order: ImportOrder) -> ClinicalReport:
        """Import an eCRF export as ordered; see `ClinicalDesk.import_export`."""
        self._require_collection(collection)
        return self.clinical.import_export(data, collection, order)

    def batch(self, name: str) -> BatchReport | None:
        """Return how far a batch is, or None where it is not known."""
        with self._database.read() as session:
            return batch_report(session, name)

    def batches(self) -> list[BatchReport]:
        """Return every batch, oldest first."""
        with self._database.read() as session:
            names = session.scalars(select(BatchRow.id).order_by(BatchRow.received_at, BatchRow.id))
            return [_required(batch_report(session, name)) for name in names]

    def status(self) -> IntakeStatus:
        """Return what is there, in counts."""
        with self._database.read() as session:
            sequence, source_date = consent_register.source_of(session)
            quarantined = session.execute(
                select(FileRow.reason, func.count())
                .where(FileRow.outcome == FileOutcome.QUARANTINED.value)
                .group_by(FileRow.reason)
            ).all()
            return IntakeStatus(
                batches_waiting=len(spool.batches(self._paths.spool)),
                patients=_count(session, PatientRow),
                studies=_count(session, StudyRow),
                instances=_count(session, InstanceRow),
                quarantined={str(reason): count for reason, count in quarantined},
                consent_sequence=sequence,
                consent_source_date=source_date,
                handover_sequence=outbox.last_sequence(session),
                key_id=self._key[0],
                key_version=self._key[1],
            )

    def flush(self) -> int:
        """Append what waits in the outbox to the handover log; returns how many entries."""
        with self._outbox_lock:
            return self._books.flush()

    def _require_collection(self, collection: str) -> None:
        if not self._offers(collection):
            raise UsageError(
                "there is no such collection here", hint="Name one of [[collections]] in station.toml."
            )

    def _offers(self, collection: str) -> bool:
        offered = self._settings.collections
        return offered is None or collection in offered

    def _finish(self, name: str) -> BatchReport:
        with self._database.write() as session:
            self._hand_over(session)
            finish_batch(session, name, self._clock())
            session.flush()
            report = _required(batch_report(session, name))
            counts: dict[str, str | int] = {
                "batch": name,
                "accepted": report.accepted,
                "duplicates": report.duplicates,
                "quarantined": sum(report.quarantined.values()),
            }
            record(session, IntakeEvent.BATCH_FINISHED, counts, now=self._clock())
        return report

    def _hand_over(self, session: Session) -> None:
        """Put new instances in the outbox, then what their patients and studies make due."""
        now = self._clock()
        rows = list(session.scalars(select(InstanceRow).where(InstanceRow.outbox.is_(None))))
        size = self._settings.instances_per_entry
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            instances = tuple(InstanceRecord.model_validate(row.record) for row in part)
            entry = outbox.enqueue(session, InstancesContent(instances=instances), len(part), now=now)
            for row in part:
                row.outbox = entry
        self.clinical.hand_over(session)
        consent_register.hand_over(session, now=now, rules=self._settings.consent)


def _sole_process(root: Path) -> int:
    try:
        descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(
            f"intake's folder cannot be opened ({error.strerror})", hint="Run the station's init."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StateError(
            "another process works on this intake", hint="Speak to the running service, or stop it first."
        ) from None
    return descriptor


def _bytes_of(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        if source.stat().st_size > MAX_CSV_BYTES:
            raise DataError(f"the CSV file is over {MAX_CSV_BYTES} bytes")
        return source.read_bytes()
    except OSError as error:
        raise NotFoundError(f"the CSV file cannot be read ({error.strerror})") from error


def _count(session: Session, table: type[PatientRow | StudyRow | InstanceRow]) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


def _required(value: _T | None) -> _T:
    if value is None:
        raise StateError("intake: a record that was just written is not there")
    return value
