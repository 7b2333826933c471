"""The use cases of labels: files held while an import is under way, NIfTI masks checked and handed over, segmentations likewise.

An import of masks is taken over whole or not at all. A mask is durable in the handover folder before the transaction that names it;
one that no entry names is of no consequence.
"""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.documents import digest_of
from policies.errors import DataError, StateError, StorageError
from station.handover import (
    InstanceRecord,
    LabelRecord,
    LabelsContent,
    instance_path,
    label_path,
    make_folder,
)
from station.intake import outbox
from station.intake.audit import IntakeEvent, record
from station.intake.books import Books
from station.intake.clinical.handing import pseudonyms_by_id
from station.intake.clinical.labels.faults import SAYS, LabelError, LabelFault
from station.intake.clinical.labels.geometry import SeriesGrid, read_grid
from station.intake.clinical.labels.nifti import MAX_FILE_BYTES, MAX_NAMES, aligned_mask
from station.intake.clinical.labels.segmentations import SEGMENTATION_CLASSES, read_segmentation
from station.intake.clinical.labels.table import LabelLine
from station.intake.clinical.tables import LabelRow
from station.intake.schema import InstanceRow, StudyRow
from station.pseudonymisation.keys import ProjectKeys
from station.storage.files import remove_durably, storage_fault, write_atomically

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PER_ENTRY = 500


@dataclass(frozen=True, slots=True)
class HeldLabel:
    """A row of `labels.csv` with the digest of its file, which intake holds."""

    row: LabelLine
    file: str


@dataclass(frozen=True, slots=True)
class LabelProblem:
    """What is wrong with one row."""

    line: int
    fault: LabelFault

    @property
    def says(self) -> str:
        """What is wrong, in words."""
        return SAYS[self.fault]


@dataclass(frozen=True, slots=True)
class LabelsReport:
    """What an import of masks did, or would do.

    Attributes:
        handed_over: masks that are new, or that replace another.
        unchanged: masks that were handed over before.
    """

    rows: int
    handed_over: int
    unchanged: int
    problems: tuple[LabelProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelsStatus:
    """What there is: masks handed over, and segmentations that wait, by why."""

    handed_over: int
    waiting: dict[str, int] = field(default_factory=dict)


class LabelsRefusedError(DataError):
    """Masks are wrong, and none was taken."""

    def __init__(self, problems: Sequence[LabelProblem]) -> None:
        first = problems[0]
        more = f" ({len(problems)} rows are wrong)" if len(problems) > 1 else ""
        super().__init__(
            f"labels.csv, line {first.line}: {first.says}{more}",
            hint="No mask was taken. --dry-run shows all that is wrong.",
        )
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class _Series:
    """A series that is here."""

    patient: str
    study_uid: str
    series_uid: str
    files: tuple[str, ...]


class LabelDesk:
    """Masks in intake.

    Args:
        books: intake's books.
        keys: the project's.
        folder: where files are held during an import; what an earlier process left there is removed.
        handover: the handover folder.
    """

    def __init__(self, books: Books, keys: ProjectKeys, folder: Path, handover: Path) -> None:
        self._books, self._keys = books, keys
        self._folder, self._handover = folder, handover
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            for path in folder.iterdir():
                path.unlink()
        except OSError as error:
            raise storage_fault(error, folder.name) from error

    def held_path(self, digest: str) -> Path:
        """Return where a file of an import is held.

        Raises:
            StateError: it is no digest.
        """
        if not _DIGEST.fullmatch(digest):
            raise StateError("a held file is named by its digest")
        return self._folder / digest.removeprefix("sha256:")

    def hold(self, part: Path, digest: str) -> None:
        """Keep a file that was received in full until its import is over."""
        try:
            part.replace(self.held_path(digest))
        except OSError as error:
            raise storage_fault(error, "a mask") from error

    def new_part(self) -> Path:
        """Return a name for a file that is being received."""
        return self._folder / f"part-{os.urandom(8).hex()}"

    def import_masks(
        self, collection: str, held: Sequence[HeldLabel], *, by: str, dry_run: bool = False
    ) -> LabelsReport:
        """Check masks against the series they were drawn on, and hand them over; all or none.

        Raises:
            LabelsRefusedError: a row is wrong.
            StorageError: the disk is full.
        """
        problems: list[LabelProblem] = []
        made: list[tuple[LabelRecord, str]] = []
        grids: dict[str, SeriesGrid] = {}
        seen: set[tuple[str, tuple[str, ...]]] = set()
        for label in held:
            try:
                series = self._series_of(collection, label.row)
                made.append((self._make(collection, series, label, grids), label.file))
            except LabelError as error:
                problems.append(LabelProblem(label.row.line, error.fault))
                continue
            if (series.series_uid, label.row.names) in seen:
                problems.append(LabelProblem(label.row.line, LabelFault.STANDS_TWICE))
            seen.add((series.series_uid, label.row.names))
        try:
            if problems and not dry_run:
                raise LabelsRefusedError(problems)
            report = LabelsReport(len(held), 0, 0, tuple(problems))
            return report if dry_run else self._take(collection, made, by)
        finally:
            for label in held:
                with contextlib.suppress(StorageError):
                    remove_durably(self.held_path(label.file))

    def hand_over_segmentations(self, session: Session) -> None:
        """Put segmentations whose series is here in the outbox, within the caller's transaction; the others wait."""
        now = self._books.clock()
        for row in _waiting(session):
            try:
                label = self._segmentation(session, InstanceRecord.model_validate(row.record))
            except LabelError:
                continue
            entry = outbox.enqueue(session, LabelsContent(labels=(label,)), 1, now=now)
            row.outbox = entry
            _remember(session, label, row.source_digest or label.file, "", entry, self._books)

    def status(self) -> LabelsStatus:
        """Return how many masks were handed over, and why segmentations wait."""
        waiting: Counter[str] = Counter()
        with self._books.database.read() as session:
            done = len(session.scalars(select(LabelRow.file)).all())
            for row in _waiting(session):
                try:
                    self._segmentation(session, InstanceRecord.model_validate(row.record))
                except LabelError as error:
                    waiting[error.fault.value] += 1
                else:
                    waiting["next-batch"] += 1
        return LabelsStatus(done, dict(sorted(waiting.items())))

    def _series_of(self, collection: str, row: LabelLine) -> _Series:
        """Find the series that a row names."""
        with self._books.database.read() as session:
            issuers = pseudonyms_by_id(session).get(row.patient_id, {})
            patients = {issuers.get(row.issuer)} if row.issuer else set(issuers.values())
            patient = patients.pop() if len(patients) == 1 else None
            if patient is None:
                raise LabelError(LabelFault.PATIENT_UNKNOWN)
            studies = select(StudyRow.study_uid).where(StudyRow.patient == patient)
            if row.accession:
                studies = studies.where(StudyRow.accession == row.accession)
            if not session.scalars(studies).first():
                raise LabelError(LabelFault.STUDY_UNKNOWN)
            rows = session.scalars(
                select(InstanceRow).where(
                    InstanceRow.collection == collection,
                    InstanceRow.study_uid.in_(studies),
                    InstanceRow.outbox.is_not(None),
                )
            )
            found = _by_series(patient, [InstanceRecord.model_validate(one.record) for one in rows])
        if row.series_instance_uid:
            wanted = self._keys.remap_uid(row.series_instance_uid)
            found = [series for series in found if series.series_uid == wanted]
        if len(found) != 1:
            raise LabelError(LabelFault.SERIES_AMBIGUOUS if found else LabelFault.SERIES_UNKNOWN)
        return found[0]

    def _make(
        self, collection: str, series: _Series, label: HeldLabel, grids: dict[str, SeriesGrid]
    ) -> LabelRecord:
        names = label.row.names
        distinct = len(set(names)) == len(names) <= MAX_NAMES
        if not names or not distinct or not all(_NAME.fullmatch(name) for name in names):
            raise LabelError(LabelFault.NAMES_WRONG)
        path = self.held_path(label.file)
        if not path.is_file():
            raise LabelError(LabelFault.FILE_MISSING)
        if series.series_uid not in grids:
            grids[series.series_uid] = read_grid(instance_path(self._handover, file) for file in series.files)
        data = aligned_mask(path, grids[series.series_uid], len(names))
        digest = digest_of(data)
        self._store(digest, data)
        return LabelRecord(
            file=digest,
            size_bytes=len(data),
            format="nifti",
            collection=collection,
            patient=series.patient,
            study_uid=series.study_uid,
            series_uid=series.series_uid,
            names=names,
        )

    def _store(self, digest: str, data: bytes) -> None:
        target = label_path(self._handover, digest)
        make_folder(target.parent.parent)
        make_folder(target.parent)
        if not target.exists():
            write_atomically(target, data, 0o640)

    def _take(self, collection: str, made: list[tuple[LabelRecord, str]], by: str) -> LabelsReport:
        now = self._books.clock()
        with self._books.decide() as session:
            new = [(label, source) for label, source in made if not _is_known(session, label)]
            for start in range(0, len(new), _PER_ENTRY):
                part = new[start : start + _PER_ENTRY]
                content = LabelsContent(labels=tuple(label for label, _ in part))
                entry = outbox.enqueue(session, content, len(part), now=now)
                for label, source in part:
                    _remember(session, label, source, by, entry, self._books)
            fields: dict[str, str | int] = {
                "collection": collection,
                "rows": len(made),
                "handed_over": len(new),
                "by": by[:64],
            }
            record(session, IntakeEvent.LABELS_IMPORTED, fields, now=now)
        return LabelsReport(len(made), len(new), len(made) - len(new))

    def _segmentation(self, session: Session, instance: InstanceRecord) -> LabelRecord:
        source = instance_path(self._handover, instance.file)
        found = read_segmentation(source)
        here = session.scalars(
            select(InstanceRow).where(
                InstanceRow.collection == instance.collection,
                InstanceRow.study_uid == instance.study_uid,
                InstanceRow.outbox.is_not(None),
            )
        )
        if not any(row.record.get("series_uid") == found.series_uid for row in here):
            raise LabelError(LabelFault.SERIES_UNKNOWN)
        self._link(source, instance.file)
        return LabelRecord(
            file=instance.file,
            size_bytes=instance.size_bytes,
            format="dicom-seg",
            collection=instance.collection,
            patient=instance.patient,
            study_uid=instance.study_uid,
            series_uid=found.series_uid,
            names=found.names,
        )

    def _link(self, source: Path, digest: str) -> None:
        """Let a segmentation stand among the masks too: the same file under a second name."""
        target = label_path(self._handover, digest)
        make_folder(target.parent.parent)
        make_folder(target.parent)
        try:
            os.link(source, target)
        except FileExistsError:
            return
        except OSError:
            # A file system without hard links.
            write_atomically(target, source.read_bytes(), 0o640)


def is_segmentation(row: InstanceRow) -> bool:
    """Tell whether an instance is a mask, which is handed over as one and never as an image."""
    return row.record.get("sop_class_uid") in SEGMENTATION_CLASSES


def too_large(size: int) -> bool:
    """Tell whether a file is larger than masks may be."""
    return size > MAX_FILE_BYTES


def _waiting(session: Session) -> list[InstanceRow]:
    rows = session.scalars(select(InstanceRow).where(InstanceRow.outbox.is_(None)))
    return [row for row in rows if is_segmentation(row)]


def _by_series(patient: str, records: list[InstanceRecord]) -> list[_Series]:
    found: dict[tuple[str, str], list[str]] = {}
    for instance in records:
        if instance.sop_class_uid not in SEGMENTATION_CLASSES:
            found.setdefault((instance.study_uid, instance.series_uid), []).append(instance.file)
    return [_Series(patient, study, series, tuple(files)) for (study, series), files in found.items()]


def _is_known(session: Session, label: LabelRecord) -> bool:
    row = session.get(LabelRow, (label.collection, label.series_uid, " ".join(label.names)))
    return row is not None and row.file == label.file


def _remember(session: Session, label: LabelRecord, source: str, by: str, entry: int, books: Books) -> None:
    key = (label.collection, label.series_uid, " ".join(label.names))
    row = session.get(LabelRow, key)
    if row is None:
        row = LabelRow(collection=key[0], series_uid=key[1], names=key[2])
        session.add(row)
    row.file, row.source_digest = label.file, source
    row.added_at, row.added_by, row.outbox = books.clock(), by[:64], entry
    session.flush()
