"""A blind cohort: some whom a train was trained on and as many who were held back, without anything that says who is who.

    <out_root>/<name>/data/              the frozen cohort, which the train is given
    <out_root>/<name>/blind/<random>/    the blind one, which another container of it is given, for one scoring

Laid out as one split of a cohort's own form. Every patient and case has a fresh name, drawn for this one scoring; in the order of
these names lie the datalist, the table's lines, and the making of the files, so that neither a position nor an inode tells. What a
case is (its pixels, label and fields) stays, since a loss is made of it: who can recognise a patient by them is not blind.

Some cases are laid twice, under two names of two patients: an answer that differs between them is no property of the case.
"""

import contextlib
import hashlib
import hmac
import random
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from policies.documents import canonical_json
from policies.errors import StateError, StorageError
from policies.splits import Split
from station.cohorts.decoding import DecoderPool
from station.cohorts.definition import rounded
from station.cohorts.frozen import FrozenCohort, remove_tree
from station.cohorts.keys import random_name
from station.cohorts.layout import dicom_folder, finish_file, image_name, mask_name, write_file
from station.cohorts.patients import CohortDocuments, bring, read_documents, seal_copy, table_of
from station.cohorts.source import SourceFile

BLIND: Final = "blind"
SHOWN_AS: Final = Split.VALIDATION
"""The split in which all of them stand."""

MOST_PATIENTS: Final = 64
"""On each side: the area under the curve then strays by 0.05, and more patients cost more than they tell."""

MOST_BYTES: Final = 4 << 30
FEWEST_PATIENTS: Final = 20
"""On each side, where there are so many, however large their images are."""

TWINS: Final = 2
"""Of each side, so many patients have one case laid twice."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BlindCase:
    """Who a case of a blind cohort is; the station's own.

    Attributes:
        patient: a number per patient, the same for all of a patient's cases.
        member: whether the patient is one of those whom the train was trained on.
        twin_of: for a case that is laid a second time, the place of the first in the datalist.
    """

    patient: int
    member: bool
    twin_of: int | None = None


@dataclass(frozen=True, slots=True)
class BlindCohort:
    """A blind cohort on disk.

    Attributes:
        path: the folder to mount.
        cases: who is who, in the order of its datalist.
    """

    path: Path
    cases: tuple[BlindCase, ...]


@dataclass(frozen=True, slots=True)
class _Unit:
    """One case to lay, under the names it gets."""

    case: BlindCase
    entry: Json
    line: tuple[str, ...]
    name: str
    patient_name: str
    original: str


def blind_patients(cohort: FrozenCohort) -> int:
    """Return how many patients there can be on each side."""
    sides = (Split.TRAINING, SHOWN_AS)
    return min(MOST_PATIENTS, *(len(cohort.patients_by_split[split]) for split in sides))


@contextlib.contextmanager
def blind_cohort(
    cohort: FrozenCohort, seed: bytes, drawn: random.Random | None = None
) -> Iterator[BlindCohort]:
    """Lay out a blind cohort and wipe it afterwards.

    Args:
        cohort: frozen, of a training train; it stays as it is.
        seed: secret; decides who is taken where there are more than are needed. With the same seed the same patients are
            taken, so that who asks again gets no other sample to be lucky with.
        drawn: where names come from; the operating system, but in tests.

    Raises:
        StateError: the cohort's documents or files cannot be read.
        StorageError: it cannot be written; nothing stays.
    """
    folder = cohort.path.parent / BLIND / secrets.token_hex(12)
    try:
        yield BlindCohort(folder, _lay_or_say(cohort, folder, seed, drawn or secrets.SystemRandom()))
    finally:
        _remove(folder)


def _lay_or_say(
    cohort: FrozenCohort, folder: Path, seed: bytes, drawn: random.Random
) -> tuple[BlindCase, ...]:
    try:
        return _lay(cohort, folder, seed, drawn)
    except OSError as error:
        raise StorageError(
            f"a blind cohort cannot be written ({error.strerror})", hint="Free disk space."
        ) from error


def _lay(cohort: FrozenCohort, folder: Path, seed: bytes, drawn: random.Random) -> tuple[BlindCase, ...]:
    documents = read_documents(cohort)
    units = _named(_chosen(cohort.path, documents, seed), documents, seed, drawn)
    folder.parent.mkdir(mode=0o711, exist_ok=True)
    folder.mkdir(mode=0o700)
    entries = []
    with contextlib.ExitStack() as closing:
        pool: DecoderPool | None = None
        for unit in units:
            if unit.entry["image"].startswith(f"{dicom_folder('')}"):
                pool = pool or closing.enter_context(DecoderPool())
                _bring_dicom(cohort.path, folder, unit, pool, drawn)
            entries.append(_bring_case(cohort.path, folder, unit))
    patients = len({unit.case.patient for unit in units})
    splits: Json = {split.value: entries if split is SHOWN_AS else [] for split in Split}
    counts = {split: {"images": 0, "patients": 0} for split in documents.description["counts_rounded"]} | {
        SHOWN_AS.value: {"images": rounded(len(units)), "patients": rounded(patients)}
    }
    for name, content in (
        ("datalist.json", canonical_json({**documents.datalist, **splits})),
        ("clinical.csv", table_of((documents.header, *(unit.line for unit in units)))),
        ("cohort.json", canonical_json({**documents.description, "counts_rounded": counts})),
    ):
        (folder / name).write_bytes(content)
        finish_file(folder / name)
    seal_copy(folder)
    return tuple(unit.case for unit in units)


def _chosen(data: Path, documents: CohortDocuments, seed: bytes) -> list[tuple[str, bool]]:
    """Return the patients to take, as many of one side as of the other, and whether each is a member."""

    def ranked(split: Split) -> list[str]:
        return sorted(
            (patient for at, patient in documents.entries if at is split), key=lambda one: _rank(seed, one)
        )

    members, held_back = ranked(Split.TRAINING), ranked(SHOWN_AS)
    count = min(len(members), len(held_back), MOST_PATIENTS)
    sides = ((Split.TRAINING, members), (SHOWN_AS, held_back))
    size = 0
    for taken in range(count):
        size += sum(
            _size(data / entry["image"])
            for split, side in sides
            for entry in documents.entries[split, side[taken]]
        )
        if size > MOST_BYTES:
            count = max(taken, min(count, FEWEST_PATIENTS))
            break
    return [(patient, True) for patient in members[:count]] + [
        (patient, False) for patient in held_back[:count]
    ]


def _named(
    chosen: Sequence[tuple[str, bool]], documents: CohortDocuments, seed: bytes, drawn: random.Random
) -> list[_Unit]:
    """Give every case its fresh names and return them in the order of these.

    Nothing in here depends on who is a member but the `BlindCase`: the draws are made in an order of the patients' own names.
    """
    twins = {
        patient
        for member in (True, False)
        for patient in sorted(
            (one for one, side in chosen if side is member), key=lambda one: _rank(seed, one)
        )[:TWINS]
    }
    units: list[_Unit] = []
    for number, (patient, member) in enumerate(sorted(chosen)):
        split = Split.TRAINING if member else SHOWN_AS
        lines = {line[0]: line for line in documents.clinical.get(patient, ())}
        patient_name = random_name("p", drawn)
        for place, entry in enumerate(
            sorted(documents.entries[split, patient], key=lambda one: str(one["case"]))
        ):
            copies = 2 if patient in twins and place == 0 else 1
            for copy in range(copies):
                name = random_name("c", drawn)
                called = patient_name if copy == 0 else random_name("p", drawn)
                line = lines.get(entry["case"], [])
                units.append(
                    _Unit(
                        BlindCase(number, member, None if copy == 0 else -1),
                        entry,
                        (name, called, *line[2:]),
                        name,
                        called,
                        str(entry["case"]),
                    )
                )
    units.sort(key=lambda unit: unit.name)
    firsts = {unit.original: at for at, unit in enumerate(units) if unit.case.twin_of is None}
    return [
        unit
        if unit.case.twin_of is None
        else replace(unit, case=replace(unit.case, twin_of=firsts[unit.original]))
        for unit in units
    ]


def _bring_case(data: Path, folder: Path, unit: _Unit) -> Json:
    """Copy a case's files to their new names; returns its entry."""
    entry = {**unit.entry, "case": unit.name, "patient": unit.patient_name}
    if (folder / dicom_folder(unit.name)).is_dir():
        entry["image"] = dicom_folder(unit.name)
    else:
        entry["image"] = image_name(unit.name)
        bring(data / unit.entry["image"], folder / entry["image"])
    if isinstance(unit.entry.get("label"), str):
        entry["label"] = mask_name(unit.name)
        bring(data / unit.entry["label"], folder / entry["label"])
    return entry


def _bring_dicom(data: Path, folder: Path, unit: _Unit, pool: DecoderPool, drawn: random.Random) -> None:
    """Write a case's DICOM files anew: with other UIDs and the fresh name, in another order. Dates stay as in the table."""
    target = folder / dicom_folder(unit.name)
    target.parent.mkdir(mode=0o755, exist_ok=True)
    target.mkdir(mode=0o755)
    files = sorted((data / unit.entry["image"]).iterdir())
    drawn.shuffle(files)
    sources = [SourceFile(path) for path in files]
    for number, made in enumerate(pool.rekeyed(sources, drawn.randbytes(32), unit.patient_name, 0)):
        if not isinstance(made, bytes):
            raise StateError("a cohort's DICOM file cannot be read again", hint="Freeze the cohort again.")
        write_file(target / f"{number:05d}.dcm", made)


def _rank(seed: bytes, patient: str) -> bytes:
    return hmac.digest(seed, patient.encode(), hashlib.sha256)


def _size(image: Path) -> int:
    if image.is_dir():
        return sum(path.stat().st_size for path in image.iterdir())
    return image.stat().st_size


def _remove(folder: Path) -> None:
    try:
        remove_tree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"a blind cohort cannot be wiped ({error.strerror})") from error
