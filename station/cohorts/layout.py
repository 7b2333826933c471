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
from policies.splits import Split
from station.cohorts.definition import CohortDefinition, rounded
from station.cohorts.hounsfield import MAXIMUM_HU, MINIMUM_HU, PADDING_HU
from station.cohorts.keys import DAY_S, SHIFT_WINDOW_S
from station.cohorts.source import JsonScalar

IMAGES = "images"
LABELS = "labels"
DICOM = "dicom"
EPOCH_S = 946_684_800
"""Files carry no date of their own: 2000-01-01T00:00:00Z."""


@dataclass(frozen=True, slots=True)
class LaidCase:
    """One case as a train sees it: no pseudonym of the project in it.

    Attributes:
        image: its file, or its folder of DICOM files, relative to the cohort's folder.
        mask: its label map, likewise; None where none was asked for.
    """

    case: str
    patient: str
    image: str
    mask: str | None
    split: Split
    label: float | int | None
    clinical: Mapping[str, JsonScalar]


def image_name(case: str) -> str:
    """Return a case's image, relative to the cohort folder."""
    return f"{IMAGES}/{case}.nii"


def mask_name(case: str) -> str:
    """Return a case's label map, relative to the cohort folder."""
    return f"{LABELS}/{case}.nii"


def dicom_folder(case: str) -> str:
    """Return the folder of a case's DICOM files, relative to the cohort folder."""
    return f"{DICOM}/{case}"


def subfolders(definition: CohortDefinition) -> tuple[str, ...]:
    """Return the folders that a cohort has."""
    if definition.representation == "dicom":
        return (DICOM,)
    return (IMAGES, LABELS) if definition.masks else (IMAGES,)


def write_file(path: Path, *data: bytes | memoryview, mode: int = 0o444) -> None:
    """Write one new file durably, without a date of its own."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for part in data:
            file.write(part)
        file.flush()
        os.fsync(descriptor)
        os.fchmod(descriptor, mode)
        os.utime(descriptor, (EPOCH_S, EPOCH_S))


def finish_file(path: Path) -> None:
    """Make a file that is written and synced what a cohort's files are: read-only, without a date of its own."""
    path.chmod(0o444)
    os.utime(path, (EPOCH_S, EPOCH_S))


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
        os.utime(current, (EPOCH_S, EPOCH_S))


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
        entry: dict[str, JsonScalar] = {"case": case.case, "patient": case.patient}
        if case.image:
            entry["image"] = case.image
        if case.mask is not None:
            entry["label"] = case.mask
        if definition.label is not None:
            entry["label" if case.mask is None else "label_value"] = case.label
        splits[case.split].append(entry)
    return canonical_json(
        {
            "name": definition.profile,
            "modality": {str(index): str(modality) for index, modality in enumerate(definition.modalities)},
            "labels": _labels(definition, cases),
            "tensorImageSize": "3D" if definition.volumes else "2D",
            **{str(split): entries for split, entries in splits.items()},
        }
    )


def _labels(definition: CohortDefinition, cases: Sequence[LaidCase]) -> dict[str, str]:
    if definition.masks:
        return {"0": "background"} | {str(value): name for value, name in enumerate(definition.masks, 1)}
    if definition.label is None:
        return {}
    values = sorted({case.label for case in cases if isinstance(case.label, int)})
    return {str(value): f"{definition.label}={value}" for value in values}


def _clinical(definition: CohortDefinition, cases: Sequence[LaidCase]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "patient", *definition.fields))
    for case in cases:
        writer.writerow((case.case, case.patient, *(_cell(case.clinical.get(f)) for f in definition.fields)))
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
            # A train that is shown nothing of how images were acquired has the cohort that it had before there was such a thing.
            "definition": definition.model_dump(
                mode="json", exclude=set() if definition.acquisition_fields else {"acquisition_fields"}
            ),
            "counts_rounded": counts,
            "images": _images(definition),
            "masks": {
                "format": "NIfTI-1, 3-D, uncompressed, on the image's own grid",
                "dtype": "uint8",
                "values": _labels(definition, cases),
            }
            if definition.masks
            else None,
            "dates_moved_days": {
                "earlier_at_least": SHIFT_WINDOW_S[0] // DAY_S,
                "at_most": SHIFT_WINDOW_S[1] // DAY_S,
            },
        }
    )


def _images(definition: CohortDefinition) -> dict[str, JsonScalar]:
    if definition.representation == "dicom":
        return {"format": "DICOM, a folder per case; names tell no order", "uids": "of this train"}
    if definition.volumes:
        return {
            "format": "NIfTI-1, 3-D, uncompressed",
            "dtype": "int16",
            "axes": "along a row, down a column, from slice to slice",
            "unit": "HU",
            "minimum": MINIMUM_HU,
            "maximum": MAXIMUM_HU,
            "padding": PADDING_HU,
        }
    return {
        "format": "NIfTI-1, 2-D, uncompressed",
        "dtype": "uint16",
        "axes": "width, height",
        "black": 0,
        "white": 65535,
    }
