"""Intake as a library: what the service, the command line, the demo and tests call.

One process at a time: a lock on intake's folder says so. Holds the pseudonym key and everything identified; what
compute may know leaves through the handover only (I9).
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from policies.documents import Name
from policies.errors import DataError, NotFoundError
from policies.profiles import DEFAULT_PROFILE
from station.handover import HandoverLog
from station.intake import outbox, removals, spool
from station.intake.batches import BatchDesk
from station.intake.books import Books
from station.intake.clinical.desk import ClinicalDesk, ClinicalReport, ImportOrder
from station.intake.clinical.labels.desk import HeldLabel, LabelDesk, LabelsReport
from station.intake.consent import register as consent_register
from station.intake.consent.desk import ConsentDesk, RegisterFormat
from station.intake.consent.usage import UsageDesk
from station.intake.csv_reader import MAX_CSV_BYTES
from station.intake.installation import MIGRATIONS, load_handover_key
from station.intake.locking import sole_process
from station.intake.merges import register as merge_register
from station.intake.merges.desk import MergeDesk
from station.intake.outcomes import BatchReport, ConsentReport, FileOutcome, IntakeStatus, Progress
from station.intake.paths import IntakePaths
from station.intake.quarantine import Quarantine
from station.intake.retention import RetentionDesk
from station.intake.schema import FileRow, InstanceRow, PatientRow, StudyRow
from station.intake.settings import IntakeSettings
from station.intake.staging import stage_into
from station.intake.workforce import Aliases, Workforce
from station.pseudonymisation.keys import PseudonymKey
from station.pseudonymisation.options import DEFAULT_OPTIONS, Option
from station.pseudonymisation.reading import quiet_pydicom
from station.storage.database import open_database


def _now() -> datetime:
    return datetime.now(UTC)


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
        self._held = ExitStack()
        self._held.enter_context(sole_process(paths.root))
        try:
            key = PseudonymKey.load(paths.pseudonym_key)
            self._key = (key.key_id, key.version)
            log = HandoverLog(paths.handover, load_handover_key(paths))
            self._books = Books(open_database(paths.database, MIGRATIONS), log, clock)
        except BaseException:
            self._held.close()
            raise
        quiet_pydicom()
        self._keys = key.for_project(self._settings.project)
        self._workforce = Workforce(paths, self._settings, key, self._merged)
        self._desk = BatchDesk(paths, self._settings, self._books, self._workforce, self._also_due)
        self.consent = ConsentDesk(self._books, self._settings.consent)
        self.usage = UsageDesk(self._books, paths.card)
        self.clinical = ClinicalDesk(self._books, self._keys, keeps_dates=_keeping_dates(self._settings))
        self.labels = LabelDesk(self._books, self._keys, paths.labels, paths.handover)
        self.quarantine = Quarantine(paths, self._books, self._workforce)
        self.retention = RetentionDesk(paths, self._books, self._settings.retention)
        self.merges = MergeDesk(
            self._books, self._workforce, self._keys.pseudonym, self._settings.default_issuer, self._also_due
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database and of the lock."""
        self._desk.close()
        self._books.close()
        self._held.close()

    def import_folder(self, source: Path, collection: Name, progress: Progress = _no_progress) -> BatchReport:
        """Stage a folder into the spool and process it; again is idempotent.

        Raises:
            NotFoundError: the source is not a folder.
            DataError: it holds no files.
            UsageError: the collection is not one of this station.
            StorageError: the disk is full; what was done stays done.
        """
        self._desk.require_collection(collection)
        batch = stage_into(self._paths.spool, source, collection)
        self.accept_batch(batch.name, collection)
        return self.process_batch(batch.name, progress)

    def accept_batch(self, name: str, collection: Name) -> BatchReport:
        """Say which collection a spooled batch belongs to; see `BatchDesk.accept`."""
        return self._desk.accept(name, collection)

    def received(self, batch: spool.StagedBatch) -> BatchReport | None:
        """Take up a batch whose card names its collection, and have it processed; see `BatchDesk.received`."""
        return self._desk.received(batch)

    def when_accepted(self, work: Callable[[str], None]) -> None:
        """Say who processes batches that `received` took up."""
        self._desk.when_accepted(work)

    def process_batch(self, name: str, progress: Progress = _no_progress) -> BatchReport:
        """Process one accepted batch to its end, and hand over what it brought; see `BatchDesk.process`."""
        return self._desk.process(name, progress)

    def recover(self) -> list[str]:
        """Take up what an earlier process left; returns the batches still to be processed. See `BatchDesk.recover`."""
        return self._desk.recover()

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
        with self._books.database.read() as session:
            return removals.held(session, collection)

    def remap_uid(self, uid: str) -> str:
        """Return what a UID of the source is here."""
        return self._keys.remap_uid(uid)

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
        self._desk.require_collection(collection)
        return self.clinical.import_export(data, collection, order)

    def import_masks(
        self, collection: Name, held: Sequence[HeldLabel], *, by: str, dry_run: bool = False
    ) -> LabelsReport:
        """Hand over NIfTI masks, all or none; see `LabelDesk.import_masks`."""
        self._desk.require_collection(collection)
        return self.labels.import_masks(collection, held, by=by, dry_run=dry_run)

    def batch(self, name: str) -> BatchReport | None:
        """Return how far a batch is, or None where it is not known."""
        return self._desk.report(name)

    def batches(self) -> list[BatchReport]:
        """Return every batch, oldest first."""
        return self._desk.reports()

    def status(self) -> IntakeStatus:
        """Return what is there, in counts."""
        with self._books.database.read() as session:
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
        return self._books.flush()

    def _merged(self) -> Aliases:
        with self._books.database.read() as session:
            return merge_register.aliases(session)

    def _also_due(self, session: Session) -> None:
        """Put in the outbox what new patients, studies and merges make due."""
        self.labels.hand_over_segmentations(session)
        self.clinical.hand_over(session)
        consent_register.hand_over_if_due(session, now=self._books.clock(), rules=self._settings.consent)


def _keeping_dates(settings: IntakeSettings) -> Callable[[str], bool]:
    """Say which collections keep shifted dates: in clinical data they stay or go as in the images."""

    def kept(collection: str) -> bool:
        return Option.MODIFIED_DATES in settings.options.get(collection, DEFAULT_OPTIONS).chosen

    return kept


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
