"""Write a cohort's folder as field tools read it: Decathlon/MONAI datalist, NIfTI images, one table, one description.

What is written depends on the arguments alone, never on the clock or the order in which files were found.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from policies.documents import canonical_json
from policies.manifest import Split
from station.cohorts.definition import CohortDefinition, rounded
from station.cohorts.source import JsonScalar

IMAGES = "images"
# Files carry no date of their own: 2000-01-01T00:00:00Z.
_EPOCH_S = 946_684_800


@dataclass(frozen=True, slots=True)
class LaidCase:
    """One case as a train sees it: no pseudonym of the project in it."""

    case: str
    patient: str
    split: Split
    label: float | int | None
    clinical: Mapping[str, JsonScalar]


def image_name(case: str) -> str:
    """Return a case's image, relative to the cohort folder."""
    return f"{IMAGES}/{case}.nii"


def write_file(path: Path, data: bytes, mode: int = 0o444) -> None:
    """Write one new file durably, without a date of its own."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
        os.fchmod(descriptor, mode)
        os.utime(descriptor, (_EPOCH_S, _EPOCH_S))


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(folder: Path) -> None:
    """Make every folder of the tree durable, read-only and dateless; files are so already."""
    for current, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(current))
        Path(current).chmod(0o555)
        os.utime(current, (_EPOCH_S, _EPOCH_S))


def write_documents(folder: Path, definition: CohortDefinition, cases: Sequence[LaidCase]) -> None:
    """Write datalist.json, clinical.csv and cohort.json.

    Args:
        folder: the cohort folder; its images lie there already.
        definition: what was asked for.
        cases: sorted by case.
    """
    write_file(folder / "datalist.json", _datalist(definition, cases))
    write_file(folder / "clinical.csv", _clinical(definition, cases))
    write_file(folder / "cohort.json", _description(definition, cases))


def _datalist(definition: CohortDefinition, cases: Sequence[LaidCase]) -> bytes:
    splits: dict[Split, list[dict[str, JsonScalar]]] = {split: [] for split in Split}
    for case in cases:
        entry: dict[str, JsonScalar] = {
            "image": image_name(case.case),
            "case": case.case,
            "patient": case.patient,
        }
        if definition.label is not None:
            entry["label"] = case.label
        splits[case.split].append(entry)
    labels = sorted({case.label for case in cases if isinstance(case.label, int)}) if definition.label else []
    return canonical_json(
        {
            "name": definition.profile,
            "modality": {str(index): str(modality) for index, modality in enumerate(definition.modalities)},
            "labels": {str(label): f"{definition.label}={label}" for label in labels},
            "tensorImageSize": "2D",
            **{str(split): entries for split, entries in splits.items()},
        }
    )


def _clinical(definition: CohortDefinition, cases: Sequence[LaidCase]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "patient", *definition.clinical_fields))
    for case in cases:
        writer.writerow(
            (case.case, case.patient, *(_cell(case.clinical.get(f)) for f in definition.clinical_fields))
        )
    return text.getvalue().encode()


def _cell(value: JsonScalar) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _description(definition: CohortDefinition, cases: Sequence[LaidCase]) -> bytes:
    counts = {}
    for split in definition.splits:
        inside = [case for case in cases if case.split is split]
        counts[str(split)] = {
            "images": rounded(len(inside)),
            "patients": rounded(len({case.patient for case in inside})),
        }
    return canonical_json(
        {
            "schema_version": 1,
            "definition": definition.model_dump(mode="json"),
            "counts_rounded": counts,
            "images": {
                "format": "NIfTI-1, 2-D, uncompressed",
                "dtype": "uint16",
                "axes": "width, height",
                "black": 0,
                "white": 65535,
            },
        }
    )
