"""The journal of a retrieval: what was asked for and how far each item is, durable, so that it goes on after a kill.

    HOME/intake/retrievals/<job>/job.json       what was asked for
    HOME/intake/retrievals/<job>/journal.jsonl  a line per change, appended and synced
    HOME/intake/retrievals/<job>/report.csv     written at the end: each item, for the hospital's own eyes

Everything here is identified: 0700 and 0600, in intake's folder. Outside it only the counts of `JobReport` are told.
"""

import csv
import io
import logging
import os
import re
import secrets
import threading
from collections import Counter
from collections.abc import Sequence as Items
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field

from policies.documents import Moment, Name, Sequence, StrictModel, canonical_json, load_json
from policies.errors import NotFoundError, PhtError, StateError
from station.intake.sources.queries import MAX_ACCESSIONS
from station.storage.files import storage_fault, sync_folder, write_atomically

LOG = logging.getLogger("station.intake.sources")

JOB_NAME = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{6}")
_CARD, _LINES, _REPORT = "job.json", "journal.jsonl", "report.csv"
_MAX_CARD_BYTES = 64 << 20
_MAX_LINE_BYTES = 4096


class ItemState(StrEnum):
    """How far one accession or study is."""

    PENDING = "pending"
    FOUND = "found"
    RETRIEVED = "retrieved"
    INCOMPLETE = "incomplete"
    MISSING = "missing"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Whether nothing more is done for it."""
        return self not in {ItemState.PENDING, ItemState.FOUND}


class JobState(StrEnum):
    """How far a retrieval is."""

    RUNNING = "running"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    FINISHED = "finished"


class JobItem(StrictModel):
    """What is to be retrieved: the studies of an accession number, or one study."""

    accession: Annotated[str, Field(max_length=16)] = ""
    study_uid: Annotated[str, Field(max_length=64)] = ""


class JobCard(StrictModel):
    """What was asked for.

    Attributes:
        modalities: the series that are wanted; any where empty.
        body_part: of those series; any where empty.
    """

    job: Annotated[str, Field(pattern=JOB_NAME.pattern)]
    pacs: Name
    collection: Name
    created_at: Moment
    modalities: Sequence[str] = ()
    body_part: str = ""
    items: Sequence[JobItem] = Field(min_length=1, max_length=MAX_ACCESSIONS)


class Progress(StrictModel):
    """How far one item is.

    Attributes:
        expected: instances that the PACS says there are; None where it does not say.
        received: instances that are in the spool.
        reason: why it is missing, incomplete or failed.
        attempts: how many ended with a fault.
    """

    state: ItemState = ItemState.PENDING
    expected: int | None = None
    received: int = 0
    reason: str = ""
    attempts: int = 0


class JournalLine(StrictModel):
    """One change: of an item, or of the whole."""

    item: int | None = None
    progress: Progress | None = None
    state: JobState | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class JobReport:
    """A retrieval in counts and reasons: nothing of a patient.

    Attributes:
        items: counts by state.
        reasons: counts by reason, of items that are not all there.
        expected: instances the PACS says there are, as far as it was asked.
        received: instances that are in the spool, or were.
    """

    job: str
    pacs: str
    collection: str
    state: JobState
    reason: str
    items: dict[str, int]
    reasons: dict[str, int]
    expected: int
    received: int


class Journal:
    """One retrieval's journal; made by `create` or `open`. Threads may share it."""

    def __init__(self, folder: Path, card: JobCard) -> None:
        self._folder = folder
        self.card = card
        self.progress: list[Progress] = [Progress()] * len(card.items)
        self.state = JobState.RUNNING
        self.reason = ""
        self._lock = threading.Lock()

    @classmethod
    def create(cls, root: Path, card: JobCard) -> "Journal":
        """Begin one, durably.

        Raises:
            StorageError: it cannot be written.
        """
        folder = root / card.job
        try:
            root.mkdir(mode=0o700, exist_ok=True)
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise storage_fault(error, "retrievals") from error
        write_atomically(folder / _LINES, b"")
        write_atomically(folder / _CARD, canonical_json(card))
        sync_folder(root)
        return cls(folder, card)

    @classmethod
    def open(cls, root: Path, job: str) -> "Journal":
        """Read one; a line that a crash cut short never happened.

        Raises:
            NotFoundError: there is no such retrieval.
            StateError: it is damaged.
        """
        folder = root / job
        if not JOB_NAME.fullmatch(job) or not (folder / _CARD).is_file():
            raise NotFoundError("there is no such retrieval")
        card = load_json(JobCard, (folder / _CARD).read_bytes(), what="retrieval", max_bytes=_MAX_CARD_BYTES)
        journal = cls(folder, card)
        journal._replay()
        return journal

    def record(self, item: int, progress: Progress) -> None:
        """Say how far an item is; durable on return."""
        with self._lock:
            self._append(JournalLine(item=item, progress=progress))
            self.progress[item] = progress

    def say(self, state: JobState, reason: str = "") -> None:
        """Say how far the whole is; durable on return."""
        with self._lock:
            self._append(JournalLine(state=state, reason=reason))
            self.state, self.reason = state, reason

    def open_items(self) -> list[int]:
        """Return the items that are not done with."""
        return [number for number, progress in enumerate(self.progress) if not progress.state.final]

    def report(self) -> JobReport:
        """Return the counts."""
        progress = self.progress
        return JobReport(
            job=self.card.job,
            pacs=self.card.pacs,
            collection=self.card.collection,
            state=self.state,
            reason=self.reason,
            items=dict(Counter(one.state.value for one in progress)),
            reasons=dict(Counter(one.reason for one in progress if one.reason)),
            expected=sum(one.expected or 0 for one in progress),
            received=sum(one.received for one in progress),
        )

    def write_details(self) -> None:
        """Write what became of each item, for the hospital's own eyes: 0600, in intake's folder."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(("accession", "study_uid", "state", "expected", "received", "reason"))
        for item, one in zip(self.card.items, self.progress, strict=True):
            expected = "" if one.expected is None else one.expected
            writer.writerow(
                (
                    _harmless(item.accession),
                    item.study_uid,
                    one.state.value,
                    expected,
                    one.received,
                    one.reason,
                )
            )
        write_atomically(self._folder / _REPORT, text.getvalue().encode("utf-8"))

    def _append(self, line: JournalLine) -> None:
        try:
            descriptor = os.open(self._folder / _LINES, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "ab") as file:
                file.write(canonical_json(line) + b"\n")
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            raise storage_fault(error, _LINES) from error

    def _replay(self) -> None:
        path = self._folder / _LINES
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) != len(data):
            os.truncate(path, len(whole))
        for text in whole.splitlines():
            line = load_json(JournalLine, text, what="retrieval journal", max_bytes=_MAX_LINE_BYTES)
            if line.state is not None:
                self.state, self.reason = line.state, line.reason
            elif line.item is not None and line.progress is not None and line.item < len(self.progress):
                self.progress[line.item] = line.progress
            else:
                raise StateError(
                    "a retrieval's journal is damaged", hint="Remove its folder and retrieve again."
                )


def new_card(
    now: datetime,
    pacs: str,
    collection: str,
    items: Items[JobItem],
    *,
    modalities: Items[str],
    body_part: str,
) -> JobCard:
    """Return the card of a new retrieval."""
    return JobCard(
        job=f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}",
        pacs=pacs,
        collection=collection,
        created_at=now,
        modalities=tuple(modalities),
        body_part=body_part,
        items=tuple(items),
    )


def journals(root: Path) -> list[Journal]:
    """Return every retrieval, oldest first; one that cannot be read is passed over, and said so."""
    found: list[Journal] = []
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    for name in names:
        if not JOB_NAME.fullmatch(name) or not (root / name / _CARD).is_file():
            continue
        try:
            found.append(Journal.open(root, name))
        except PhtError as error:
            LOG.error("pacs-retrieval-unreadable", extra={"code": type(error).__name__})  # noqa: TRY400
    return found


def forget_old(root: Path, before: datetime) -> int:
    """Remove retrievals that are over and were asked for before a moment; returns how many. They name accessions.

    Raises:
        StorageError: one cannot be removed.
    """
    old = [
        journal.card.job
        for journal in journals(root)
        if journal.state in {JobState.FINISHED, JobState.CANCELLED} and journal.card.created_at < before
    ]
    for job in old:
        try:
            # The card first: without it the folder is none.
            for name in (_CARD, _LINES, _REPORT):
                (root / job / name).unlink(missing_ok=True)
            (root / job).rmdir()
        except OSError as error:
            raise storage_fault(error, "retrievals") from error
    return len(old)


def _harmless(text: str) -> str:
    # A spreadsheet would take it for a formula.
    return f"'{text}" if text[:1] in {"=", "+", "-", "@"} else text
