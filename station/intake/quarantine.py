"""Quarantine: a person's queue of identified files that could not be taken up, each with its reason.

A person sees technical facts and, where asked for, a small picture; releases a file after review, or discards it. Every step
is audited with who did it. Files lie in `quarantine/<reason>/<id>`; what the database says of them counts.

Releasing pseudonymises the file with its collection's rules. Its pixels are not inspected again and nothing is claimed of
them, unless the person masks rectangles. A fault of the file itself cannot be reviewed away: it stays where it is.
"""

import base64
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.errors import NotFoundError, RefusedError, StorageError, UsageError
from station.handover import InstanceRecord, InstancesContent
from station.intake import outbox, recording, removals
from station.intake.audit import IntakeEvent, record
from station.intake.books import Books
from station.intake.clinical.labels.desk import is_segmentation
from station.intake.outcomes import FileOutcome, IntakeReason
from station.intake.paths import IntakePaths
from station.intake.schema import BatchRow, FileRow, InstanceRow, StudyRow
from station.intake.spool import BATCH_NAME, FILE_NAME
from station.intake.workers import (
    Box,
    Described,
    DescribeTask,
    Refused,
    Rendered,
    RenderTask,
    Taken,
    TakeTask,
)
from station.intake.workers.messages import Answer, Task, Unstored
from station.intake.workforce import Workforce
from station.storage.files import remove_durably

MAX_NAME_CHARACTERS: Final = 64
MAX_REASON_CHARACTERS: Final = 500
THUMBNAIL_SIDE: Final = 512
_DASH = "-"


@dataclass(frozen=True, slots=True)
class QuarantinedFile:
    """A file in quarantine.

    Attributes:
        id: names it towards the operator.
        since: when it came there; None in records of an early version.
    """

    id: str
    reason: str
    collection: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Review:
    """Who looked at a file, and why they decide as they do. The reason is the operator's own text and stays here."""

    operator: str
    reason: str

    def __post_init__(self) -> None:
        if not 0 < len(self.operator.strip()) <= MAX_NAME_CHARACTERS:
            raise UsageError(f"the operator's name has 1 to {MAX_NAME_CHARACTERS} characters")
        if not 0 < len(self.reason.strip()) <= MAX_REASON_CHARACTERS:
            raise UsageError(f"the reason has 1 to {MAX_REASON_CHARACTERS} characters")


class Quarantine:
    """The queue. Works while batches are processed.

    Args:
        paths: intake's folders.
        books: intake's books.
        workforce: its workers alone meet the files.
    """

    def __init__(self, paths: IntakePaths, books: Books, workforce: Workforce) -> None:
        self._paths = paths
        self._books = books
        self._workforce = workforce

    def counts(self) -> dict[str, int]:
        """Return how many files wait, by reason."""
        return dict(Counter(file.reason for file in self.files()))

    def files(self, reason: str | None = None) -> list[QuarantinedFile]:
        """Return what waits, oldest first; of one reason where one is named."""
        with self._books.database.read() as session:
            query = (
                select(FileRow, BatchRow.collection)
                .join(BatchRow, BatchRow.id == FileRow.batch)
                .where(FileRow.outcome == FileOutcome.QUARANTINED.value)
                .order_by(FileRow.batch, FileRow.name)
            )
            if reason is not None:
                query = query.where(FileRow.reason == reason)
            return [
                QuarantinedFile(f"{row.batch}-{row.name}", str(row.reason), collection, row.decided_at)
                for row, collection in session.execute(query)
            ]

    def describe(self, file_id: str) -> tuple[QuarantinedFile, Described]:
        """Say what a file is, in technical facts.

        Raises:
            NotFoundError: it is not in quarantine.
        """
        file, path = self._find(file_id)
        answer = self._ask(DescribeTask(path=str(path)))
        if not isinstance(answer, Described):
            # It kills whoever looks at it: its size is known all the same.
            answer = Described(size_bytes=path.stat().st_size)
        return file, answer

    def thumbnail(self, file_id: str, review: Review) -> bytes:
        """Return a small picture of a file as PNG; it may show a name that was burned in, so asking is audited.

        Raises:
            NotFoundError: it is not in quarantine.
            RefusedError: no picture can be made of it.
        """
        file, path = self._find(file_id)
        with self._books.database.write() as session:
            _audit(session, IntakeEvent.QUARANTINE_SHOWN, file, review, self._books.clock())
        answer = self._ask(RenderTask(path=str(path), longest_side=THUMBNAIL_SIDE))
        if not isinstance(answer, Rendered):
            code = answer.reason if isinstance(answer, Refused) else IntakeReason.PROCESSING_CRASHED.value
            raise RefusedError("QUARANTINE_NO_PICTURE", f"no picture can be made of the file: {code}")
        return base64.b64decode(answer.png)

    def release(self, file_id: str, review: Review, boxes: tuple[Box, ...] = ()) -> None:
        """Take a file up after a person's review, and hand it over.

        Args:
            file_id: which file.
            review: who releases it, and why.
            boxes: rectangles to mask before.

        Raises:
            NotFoundError: it is not in quarantine.
            RefusedError: it cannot be pseudonymised, or its study is another patient's as long as files of that patient
                are held; it stays in quarantine.
            StorageError: the disk is full; it stays in quarantine.
        """
        file, path = self._find(file_id)
        task = TakeTask(path=str(path), collection=file.collection, reviewed=True, boxes=boxes)
        answer = self._ask(task)
        if isinstance(answer, Unstored):
            raise StorageError(
                "the handover folder does not take a file", hint="Free disk space, then try again."
            )
        if not isinstance(answer, Taken):
            code = answer.reason if isinstance(answer, Refused) else IntakeReason.PROCESSING_CRASHED.value
            raise RefusedError(
                "QUARANTINE_NOT_RELEASED",
                f"the file cannot be taken up: {code}",
                hint="Correct it at its source and ingest it again, or discard it.",
            )
        with self._books.decide() as session:
            row = _waiting(session, file_id)
            answer = recording.under_surviving(session, answer)
            self._settle(session, answer)
            now = self._books.clock()
            removals.let_back(session, answer.record.collection, answer.record.sop_instance_uid)
            recording.remember(session, answer, now)
            session.flush()
            kept = session.get_one(InstanceRow, (answer.record.collection, answer.record.sop_instance_uid))
            # A segmentation waits for its series, and goes with the next batch.
            if not is_segmentation(kept):
                content = InstancesContent(instances=(InstanceRecord.model_validate(answer.record),))
                kept.outbox = outbox.enqueue(session, content, 1, now=now)
            _decide(row, FileOutcome.RELEASED, review, now)
            row.study_uid = answer.record.study_uid
            _audit(session, IntakeEvent.QUARANTINE_RELEASED, file, review, now, boxes=len(boxes))
        remove_durably(path)

    def discard(self, file_id: str, review: Review) -> None:
        """Throw a file away.

        Raises:
            NotFoundError: it is not in quarantine.
        """
        file, path = self._find(file_id)
        with self._books.database.write() as session:
            row = _waiting(session, file_id)
            now = self._books.clock()
            _decide(row, FileOutcome.DISCARDED, review, now)
            _audit(session, IntakeEvent.QUARANTINE_DISCARDED, file, review, now)
        remove_durably(path)

    def tidy(self) -> int:
        """Remove files that a crash left after they were released or discarded; returns how many."""
        removed = 0
        with self._books.database.read() as session:
            for path in self._paths.quarantine.glob("*/*"):
                batch, _, name = path.name.rpartition(_DASH)
                row = session.get(FileRow, (batch, name))
                # What the database does not know of is not ours to throw away.
                if row is not None and row.outcome != FileOutcome.QUARANTINED:
                    remove_durably(path)
                    removed += 1
        return removed

    def _ask(self, task: Task) -> Answer:
        with self._workforce.desk() as pool:
            return pool.one(task)

    def _settle(self, session: Session, taken: Taken) -> None:
        """Let a person's word say whose a study is."""
        study = session.get(StudyRow, taken.record.study_uid)
        if study is None:
            return
        if study.patient != taken.record.patient:
            held = session.scalar(
                select(InstanceRow.file).where(InstanceRow.study_uid == study.study_uid).limit(1)
            )
            if held is not None:
                raise RefusedError(
                    "QUARANTINE_OTHER_PATIENT",
                    "files of this study are held for another patient",
                    hint="Find out whose the study is; discard the file, or have the others removed first.",
                )
        if study.standing != recording.CLEAR or study.patient != taken.record.patient:
            study.standing = recording.SETTLED
            recording.remember_patient(session, taken)
            study.patient = taken.record.patient
            session.flush()

    def _find(self, file_id: str) -> tuple[QuarantinedFile, Path]:
        with self._books.database.read() as session:
            row = _waiting(session, file_id)
            batch = session.get_one(BatchRow, row.batch)
            file = QuarantinedFile(file_id, str(row.reason), batch.collection, row.decided_at)
        for folder in (self._paths.quarantine / file.reason, *self._paths.quarantine.iterdir()):
            if (folder / file_id).is_file():
                return file, folder / file_id
        raise NotFoundError("the file is not in quarantine yet", hint="Its batch is still being processed.")


def _waiting(session: Session, file_id: str) -> FileRow:
    batch, _, name = file_id.rpartition(_DASH)
    row = None
    if BATCH_NAME.fullmatch(batch) and FILE_NAME.fullmatch(name):
        row = session.get(FileRow, (batch, name))
    if row is None or row.outcome != FileOutcome.QUARANTINED:
        raise NotFoundError("there is no such file in quarantine", hint="See `pht-station quarantine list`.")
    return row


def _decide(row: FileRow, outcome: FileOutcome, review: Review, now: datetime) -> None:
    row.outcome, row.decided_by, row.decided_at = outcome.value, review.operator, now


def _audit(
    session: Session, event: IntakeEvent, file: QuarantinedFile, review: Review, now: datetime, **more: int
) -> None:
    fields: dict[str, str | int] = {
        "file": file.id,
        "code": file.reason,
        "operator": review.operator,
        "reason": review.reason,
        **more,
    }
    record(session, event, fields, now=now)
