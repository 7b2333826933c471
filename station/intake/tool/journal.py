"""The journal of a target folder: one line for each source file that is dealt with.

A line is written after the output stands under its name, so a run that was killed goes on where it stopped and does
nothing twice: what has a line is passed over, and an output without a line is made again, byte for byte the same, over
itself. A line names its file by a keyed digest: the journal lies with the output and tells nothing of the source.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from policies.errors import StateError
from policies.files import sync_folder
from station.storage.files import storage_fault

WRITTEN = "written"
DUPLICATE = "duplicate"
_FIELDS = 4
_SYNC_EVERY = 512


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One source file.

    Attributes:
        file: the keyed digest that stands for it.
        outcome: `WRITTEN`, `DUPLICATE`, or the code of the reason why it has no output.
        target: the output, relative to the folder; empty where there is none.
        patient: the patient's pseudonym; empty where there is no output.
    """

    file: str
    outcome: str
    target: str = ""
    patient: str = ""


class Journal:
    """An open journal. Make it with `open_journal`."""

    def __init__(self, file: BinaryIO, entries: dict[str, JournalEntry]) -> None:
        self._file = file
        self._unsynced = 0
        self.entries = entries

    def add(self, entry: JournalEntry) -> None:
        """Write that a file is dealt with; a later line about the same file replaces an earlier one."""
        line = json.dumps([entry.file, entry.outcome, entry.target, entry.patient], separators=(",", ":"))
        try:
            self._file.write(line.encode("ascii") + b"\n")
            self._file.flush()
            self._unsynced += 1
            if self._unsynced >= _SYNC_EVERY:
                self.sync()
        except OSError as error:
            raise storage_fault(error, "journal") from None
        self.entries[entry.file] = entry

    def sync(self) -> None:
        """Have everything on the disk: the outputs first, then the lines about them."""
        os.sync()
        os.fsync(self._file.fileno())
        self._unsynced = 0


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open a journal for this process alone; a last line that was cut off is dropped.

    Raises:
        StateError: another process works on the folder, or the journal is damaged.
        StorageError: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise storage_fault(error, "journal") from None
    with os.fdopen(descriptor, "r+b") as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError("another process works on this folder") from None
        sync_folder(path.parent)
        text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        file.truncate(len(whole))
        file.seek(len(whole))
        journal = Journal(file, _read(whole))
        yield journal
        journal.sync()


def _read(text: bytes) -> dict[str, JournalEntry]:
    entries: dict[str, JournalEntry] = {}
    for line in text.splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            fields = None
        right = (
            isinstance(fields, list) and len(fields) == _FIELDS and all(isinstance(f, str) for f in fields)
        )
        if not right:
            raise StateError("the journal of this folder is damaged", hint="Begin in an empty folder.")
        entries[fields[0]] = JournalEntry(*fields)
    return entries
