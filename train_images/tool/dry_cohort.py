"""The cases of a dry run: made-up radiographs or CT series as a station's catalogue would offer them.

Nothing is pseudonymised, since nobody in them exists; everybody consents. A clinical field that the phantoms do not have is
left empty, and the label, where they do not have it, is their finding under another name: the report says which.
"""

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np

from policies.errors import DataError, RefusedError
from policies.manifest import Modality, TrainManifest
from policies.refusals import RefusalCode
from station.cohorts import CaseSource, JsonScalar, MaskSource, SourceFile, nifti
from train_images.phantoms import PhantomSeries, generate_hospitals, write_ct_series
from train_images.phantoms.hospitals import form_rows
from train_images.phantoms.people import make_people

FINDING: Final = "pneumonia"
"""What the opacities on the phantoms are labelled as."""

_PREVALENCE: Final = 0.5

_THIS_YEAR: Final = 2021
"""When the phantoms were "taken", on average."""

_FLAGS: Final[Mapping[str, JsonScalar]] = {"yes": True, "no": False, "": None}


@dataclass(frozen=True, slots=True)
class DryCases:
    """What the cohort is frozen from.

    Attributes:
        cases: one per study: a radiograph, or a CT series.
        empty_fields: clinical fields the train asks for and the phantoms do not have.
        borrowed_label: the label the train asks for, where the phantoms' finding stands in for it.
    """

    cases: tuple[CaseSource, ...]
    empty_fields: tuple[str, ...]
    borrowed_label: str | None


def make_cases(manifest: TrainManifest, into: Path, *, patients: int, seed: int) -> DryCases:
    """Generate one made-up hospital and return its images as cases: CT for a train that asks for CT, else DX.

    Args:
        manifest: which label and fields the train asks for.
        into: a folder for the files.
        patients: how many to make up.
        seed: equal seeds give equal cases.

    Raises:
        RefusedError: the train asks for a modality that there are no phantoms of.
    """
    if Modality.CT in manifest.data.modalities:
        return _make_ct(manifest, into, patients=patients, seed=seed)
    if Modality.DX not in manifest.data.modalities:
        raise RefusedError(
            RefusalCode.DATA_MODALITY,
            "the phantoms are DX or CT, which this train does not ask for",
            hint="A dry run cannot stand in for this train's data.",
        )
    (hospital,) = generate_hospitals(into, hospitals=1, patients=patients, seed=seed)
    # One file per study, both in the order in which the hospital's studies were made up.
    images = sorted((hospital.folder / "dicom").glob("*.dcm"))
    with (hospital.folder / "ecrf.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if len(images) != len(rows):
        raise DataError("the phantoms' images and their form do not match")
    return _described(
        manifest,
        (
            _case((SourceFile(path),), row, manifest, Modality.DX)
            for path, row in zip(images, rows, strict=True)
        ),
    )


def _make_ct(manifest: TrainManifest, into: Path, *, patients: int, seed: int) -> DryCases:
    random = np.random.default_rng([seed, 0])
    people = make_people(random, count=patients, prevalence=_PREVALENCE, letter="A")
    cases = []
    for person in people:
        for study, row in zip(person.studies, form_rows(person), strict=True):
            series = write_ct_series(into / study.accession, person=person, study=study, seed=seed)
            case = _case(tuple(SourceFile(path) for path in series.files), row, manifest, Modality.CT)
            if manifest.data.masks:
                case = replace(
                    case, masks=(_mask(into / f"{study.accession}.nii", series, manifest.data.masks),)
                )
            cases.append(case)
    return _described(manifest, cases)


def _mask(path: Path, series: PhantomSeries, names: tuple[str, ...]) -> MaskSource:
    """Write the phantom's nodule as the first of the masks asked for; the others are there, and empty."""
    labels = series.nodule.astype(np.uint8)
    path.write_bytes(nifti.header(labels.shape[::-1], series.affine, labels.dtype) + labels.tobytes())
    return MaskSource(SourceFile(path), "nifti", names)


def _described(manifest: TrainManifest, cases: Iterable[CaseSource]) -> DryCases:
    label = manifest.data.label or FINDING
    wanted = dict.fromkeys([*manifest.data.clinical_fields, label])
    return DryCases(
        tuple(cases),
        tuple(name for name in wanted if name not in _FIELDS and name != label),
        label if label not in _FIELDS else None,
    )


def _case(
    files: tuple[SourceFile, ...], row: Mapping[str, str], manifest: TrainManifest, modality: Modality
) -> CaseSource:
    label = manifest.data.label or FINDING
    wanted = dict.fromkeys([*manifest.data.clinical_fields, label])
    values = {name: read(row) for name, read in _FIELDS.items()}
    shown = values.get(label, values[FINDING])
    clinical = {name: shown if name == label else values.get(name) for name in wanted}
    return CaseSource(
        case=row["accession"],
        patient=row["patient_id"],
        study=row["accession"],
        files=files,
        label=shown if isinstance(shown, int | float) else None,
        clinical=clinical,
        modality=modality.value,
        view_position="PA" if modality is Modality.DX else "",
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
