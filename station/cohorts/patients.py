"""One patient of a frozen cohort, laid out alone: what a map train's container is given.

    <out_root>/<name>/data/               the whole cohort; a map train is never given it
    <out_root>/<name>/patients/<random>/  one patient, for as long as a container works

The form is a cohort's own, so that the same tools read it; nothing in it is of another patient, or tells how many there are.
Files are clones where the file system can (they cost no space), else copies: never links, since a link's inode number is that of
its place in the cohort, and its times would carry over from one container to the next. A folder is wiped with its container, so
that there are never more copies than containers.
"""

import csv
import fcntl
import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from policies.documents import canonical_json
from policies.errors import StateError, StorageError
from policies.splits import Split
from station.cohorts.frozen import FrozenCohort, remove_tree
from station.cohorts.layout import EPOCH_S, finish_file

PATIENTS: Final = "patients"

_FICLONE: Final = 0x40049409
_CHUNK_BYTES: Final = 1 << 24

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OnePatient:
    """One patient as the cohort has them.

    Attributes:
        patient: the train's pseudonym.
        split: the patient's; splits are by patient.
        entries: of the cohort's datalist.
        clinical: lines of its table.
    """

    patient: str
    split: Split
    entries: tuple[Json, ...]
    clinical: tuple[list[str], ...]


@dataclass(frozen=True, slots=True)
class CohortDocuments:
    """What a frozen cohort says about itself.

    Attributes:
        datalist: the Decathlon document.
        description: `cohort.json`.
        header: of the clinical table.
        clinical: its lines, by the train's pseudonym of the patient.
        entries: of the datalist, by split and patient.
    """

    datalist: Json
    description: Json
    header: list[str]
    clinical: dict[str, list[list[str]]]
    entries: dict[tuple[Split, str], list[Json]]


def read_documents(cohort: FrozenCohort) -> CohortDocuments:
    """Read a cohort's three documents.

    Raises:
        StateError: they cannot be read.
    """
    try:
        datalist = json.loads((cohort.path / "datalist.json").read_bytes())
        description = json.loads((cohort.path / "cohort.json").read_bytes())
        table = list(csv.reader(io.StringIO((cohort.path / "clinical.csv").read_text("utf-8"))))
    except (OSError, ValueError) as error:
        raise StateError("cohort: its documents cannot be read", hint="Freeze the cohort again.") from error
    clinical: dict[str, list[list[str]]] = {}
    for line in table[1:]:
        clinical.setdefault(line[1], []).append(line)
    entries: dict[tuple[Split, str], list[Json]] = {}
    for split in Split:
        for entry in datalist[split]:
            entries.setdefault((split, entry["patient"]), []).append(entry)
    return CohortDocuments(datalist, description, table[0], clinical, entries)


class PatientFolders:
    """Lays out the patients of one frozen cohort one by one.

    Args:
        cohort: frozen; what is laid out is wiped with it at the latest.

    Raises:
        StateError: the cohort's documents cannot be read.
    """

    def __init__(self, cohort: FrozenCohort) -> None:
        self._data: Final = cohort.path
        self._root: Final = cohort.path.parent / PATIENTS
        documents = read_documents(cohort)
        self._datalist: Final = documents.datalist
        self._description: Final = documents.description
        self._header: Final = documents.header
        self._clinical: Final = documents.clinical
        self._entries: Final = documents.entries

    @property
    def patients(self) -> int:
        """How many there are."""
        return len(self._entries)

    def shuffled(self) -> Iterator[OnePatient]:
        """Yield every patient, in an order that is drawn anew: a patient's turn says nothing of their place in the cohort."""
        order = list(self._entries)
        secrets.SystemRandom().shuffle(order)
        for split, patient in order:
            lines = tuple(self._clinical.get(patient, ()))
            yield OnePatient(patient, split, tuple(self._entries[split, patient]), lines)

    def lay(self, one: OnePatient) -> Path:
        """Write one patient's folder under a name that says nothing; `remove` it afterwards.

        Raises:
            StorageError: it cannot be written; nothing stays.
        """
        folder = self._root / secrets.token_hex(12)
        try:
            self._root.mkdir(mode=0o711, exist_ok=True)
            folder.mkdir(mode=0o700)
            for entry in one.entries:
                for kind in ("image", "label"):
                    if isinstance(place := entry.get(kind), str):
                        bring(self._data / place, folder / place)
            for name, content in (
                ("datalist.json", canonical_json(self._datalist_of(one))),
                ("clinical.csv", self._table_of(one)),
                ("cohort.json", canonical_json(self._description_of(one))),
            ):
                (folder / name).write_bytes(content)
                finish_file(folder / name)
            seal_copy(folder)
        except OSError as error:
            self.remove(folder)
            raise StorageError(
                f"a patient's folder cannot be written ({error.strerror})", hint="Free disk space."
            ) from error
        return folder

    def remove(self, folder: Path) -> None:
        """Wipe one patient's folder; fine when it is gone already.

        Raises:
            StorageError: it cannot be deleted.
        """
        try:
            remove_tree(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"a patient's folder cannot be wiped ({error.strerror})") from error

    def _datalist_of(self, one: OnePatient) -> Json:
        # What the whole cohort's labels are would tell of others; those of masks are the train's own words.
        labels = self._datalist["labels"] if self._description.get("masks") else {}
        splits = {split.value: list(one.entries) if split is one.split else [] for split in Split}
        return {**self._datalist, "labels": labels, **splits}

    def _table_of(self, one: OnePatient) -> bytes:
        return table_of((self._header, *one.clinical))

    def _description_of(self, one: OnePatient) -> Json:
        return {
            **self._description,
            "counts_rounded": {one.split: {"images": len(one.entries), "patients": 1}},
        }


def table_of(lines: Iterable[Sequence[str]]) -> bytes:
    """Return a clinical table's file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def bring(source: Path, target: Path) -> None:
    """Clone or copy a file or a folder of files; links in it are none of ours."""
    target.parent.mkdir(mode=0o755, exist_ok=True)
    if not source.is_dir():
        _bring_file(source, target)
        return
    target.mkdir(mode=0o755)
    for path in source.iterdir():
        _bring_file(path, target / path.name)


def _bring_file(source: Path, target: Path) -> None:
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.ioctl(writing, _FICLONE, reading)
            except OSError:
                # Not a file system that clones. No sync: after a crash nobody asks for this copy.
                while os.sendfile(writing, reading, None, _CHUNK_BYTES):
                    pass
        finally:
            os.close(writing)
    finally:
        os.close(reading)
    finish_file(target)


def seal_copy(folder: Path) -> None:
    """Make folders read-only and dateless, the inner ones first; unlike a cohort's they need not outlive a crash."""
    for current, _, _ in os.walk(folder, topdown=False):
        Path(current).chmod(0o555)
        os.utime(current, (EPOCH_S, EPOCH_S))
