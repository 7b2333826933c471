"""The cases of a dry run: made-up radiographs as a station's catalogue would offer them.

Nothing is pseudonymised, since nobody in them exists; everybody consents. A clinical field that the phantoms do not have is
left empty, and the label, where they do not have it, is their finding under another name: the report says which.
"""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from policies.errors import DataError, RefusedError
from policies.manifest import Modality, TrainManifest
from policies.refusals import RefusalCode
from station.cohorts import CaseSource, JsonScalar, SourceFile
from train_images.phantoms import generate_hospitals

FINDING: Final = "pneumonia"
"""What the opacities on the phantoms are labelled as."""

_THIS_YEAR: Final = 2021
"""When the phantoms were "taken", on average."""

_FLAGS: Final[Mapping[str, JsonScalar]] = {"yes": True, "no": False, "": None}


@dataclass(frozen=True, slots=True)
class DryCases:
    """What the cohort is frozen from.

    Attributes:
        cases: one per radiograph.
        empty_fields: clinical fields the train asks for and the phantoms do not have.
        borrowed_label: the label the train asks for, where the phantoms' finding stands in for it.
    """

    cases: tuple[CaseSource, ...]
    empty_fields: tuple[str, ...]
    borrowed_label: str | None


def make_cases(manifest: TrainManifest, into: Path, *, patients: int, seed: int) -> DryCases:
    """Generate one made-up hospital and return its images as cases.

    Args:
        manifest: which label and fields the train asks for.
        into: a folder for the files.
        patients: how many to make up.
        seed: equal seeds give equal cases.

    Raises:
        RefusedError: the train asks for a modality that there are no phantoms of.
    """
    if Modality.DX not in manifest.data.modalities:
        raise RefusedError(
            RefusalCode.DATA_MODALITY,
            "the phantoms are DX, which this train does not ask for",
            hint="A dry run cannot stand in for this train's data.",
        )
    (hospital,) = generate_hospitals(into, hospitals=1, patients=patients, seed=seed)
    # One file per study, both in the order in which the hospital's studies were made up.
    images = sorted((hospital.folder / "dicom").glob("*.dcm"))
    with (hospital.folder / "ecrf.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if len(images) != len(rows):
        raise DataError("the phantoms' images and their form do not match")
    wanted = dict.fromkeys([*manifest.data.clinical_fields, manifest.data.label or FINDING])
    label = manifest.data.label or FINDING
    cases = tuple(_case(path, row, label, tuple(wanted)) for path, row in zip(images, rows, strict=True))
    return DryCases(
        cases,
        tuple(name for name in wanted if name not in _FIELDS and name != label),
        label if label not in _FIELDS else None,
    )


def _case(path: Path, row: Mapping[str, str], label: str, wanted: tuple[str, ...]) -> CaseSource:
    values = {name: read(row) for name, read in _FIELDS.items()}
    shown = values.get(label, values[FINDING])
    clinical = {name: shown if name == label else values.get(name) for name in wanted}
    return CaseSource(
        case=row["accession"],
        patient=row["patient_id"],
        study=row["accession"],
        files=(SourceFile(path),),
        label=shown if isinstance(shown, int | float) else None,
        clinical=clinical,
        modality=Modality.DX.value,
    )


def _number(name: str) -> Callable[[Mapping[str, str]], JsonScalar]:
    return lambda row: float(row[name]) if row[name] else None


# The fields of the minimal dataset thorax-1 and how they follow from the phantoms' form.
_FIELDS: Final[Mapping[str, Callable[[Mapping[str, str]], JsonScalar]]] = {
    FINDING: lambda row: int(row[FINDING]),
    "sex": lambda row: row["sex"],
    "age_years": lambda row: _THIS_YEAR - date.fromisoformat(row["birth_date"]).year,
    "temperature_c": _number("temperature_c"),
    "crp_mg_l": _number("crp_mg_l"),
    "smoker": lambda row: _FLAGS[row["smoker"]],
}
