"""The shared radiographs of three hospitals as cohorts, frozen by the station's own code: one set per seed.

A seed is another key of each hospital, and so another split of its patients. Who objected is left out. Pixels are as the hospitals
have them: intake's masking of text that is burned in is not part of this.
"""

import csv
import hashlib
from pathlib import Path

import pydicom
from cohort_files import DEFINITION

from policies.manifest import TrainKind
from station.cohorts import (
    CaseSource,
    CohortDefinition,
    CohortKey,
    DecoderPool,
    FrozenCohort,
    SourceFile,
    freeze,
)

HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
KINDS = {"own": TrainKind.TRAINING, "test": TrainKind.EVALUATION}


def prepare(source: Path, out: Path, seed: int, most: int | None = None) -> Path:
    """Freeze a seed's cohorts and return their folder: `<hospital>/<own|test>` are links to what is frozen.

    Args:
        source: hospitals with `dicom/`, `ecrf.csv` and `consent.csv`.
        out: a folder of ours.
        seed: which split.
        most: images per hospital; None for all.
    """
    folder = out / f"seed-{seed}"
    if (folder / "whole").exists():
        return folder
    with DecoderPool() as pool:
        for hospital in HOSPITALS:
            cases = _cases(source / hospital)[:most]
            key = CohortKey(hashlib.sha256(f"study {hospital} {seed}".encode()).digest())
            for name, kind in KINDS.items():
                definition = CohortDefinition.model_validate(
                    DEFINITION.model_dump() | {"kind": kind, "clinical_fields": ("pneumonia",)}
                )
                found = freeze(definition, cases, folder / "frozen", key, pool=pool)
                if not isinstance(found, FrozenCohort):
                    raise SystemExit(f"{hospital}: {found.reasons}")
                link = folder / hospital / name
                link.parent.mkdir(exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(found.path)
    (folder / "whole").touch()
    return folder


def _cases(hospital: Path) -> list[CaseSource]:
    with (hospital / "consent.csv").open(encoding="utf-8", newline="") as file:
        objected = {row["patient_id"] for row in csv.DictReader(file) if row["decision"] != "consent"}
    with (hospital / "ecrf.csv").open(encoding="utf-8", newline="") as file:
        labels = {row["accession"]: int(row["pneumonia"]) for row in csv.DictReader(file)}
    cases = []
    for path in sorted((hospital / "dicom").iterdir()):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if header.PatientID in objected or header.AccessionNumber not in labels:
            continue
        label = labels[header.AccessionNumber]
        cases.append(
            CaseSource(
                case=str(header.SOPInstanceUID),
                patient=str(header.PatientID),
                study=str(header.AccessionNumber),
                files=(SourceFile(path),),
                label=label,
                clinical={"pneumonia": label},
                modality="DX",
                view_position=str(header.get("ViewPosition", "")),
            )
        )
    return cases
