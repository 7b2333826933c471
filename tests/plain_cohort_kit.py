"""Cohorts of a few small images made by hand, laid out as stations lay them out, for trains whose answer is computed again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.documents import canonical_json
from station.cohorts import nifti


def write_cohort(
    folder: Path,
    cases: Sequence[tuple[str, str, NDArray[Any]]],
    clinical: Mapping[str, Mapping[str, str]],
    *,
    fields: Sequence[str],
    spacing_mm: Mapping[str, tuple[float, float]] | None = None,
) -> Path:
    """Write datalist, table and images.

    Args:
        folder: to be made.
        cases: split, patient and voxels; int16 HU as (x, y, z), or a radiograph as (row, column).
        clinical: of each patient, as the table shows it.
        fields: the table's columns after case and patient.
        spacing_mm: of a radiograph, by case; rows before columns.
    """
    (folder / "images").mkdir(parents=True)
    splits: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "testing": []}
    lines = ["case,patient," + ",".join(fields)]
    for number, (split, patient, voxels) in enumerate(cases):
        case = f"c{number:03d}"
        if voxels.ndim == 3:
            head = nifti.header(voxels.shape, np.diag([0.7, 0.7, 1.5, 1.0]), np.dtype(np.int16))
            content = head + voxels.astype("<i2").tobytes(order="F")
        else:
            content = nifti.encode(voxels.astype(np.uint16), (spacing_mm or {}).get(case, (0.14, 0.14)))
        (folder / "images" / f"{case}.nii").write_bytes(content)
        splits[split].append({"case": case, "patient": patient, "image": f"images/{case}.nii"})
        lines.append(",".join([case, patient, *(clinical[patient].get(field, "") for field in fields)]))
    (folder / "datalist.json").write_bytes(canonical_json({"name": "thorax-1@1", "labels": {}, **splits}))
    (folder / "clinical.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_request(folder: Path, config: Mapping[str, float | int]) -> Path:
    """Write what a `command` train finds in its working folder."""
    (folder / "request").mkdir(parents=True)
    (folder / "reply").mkdir()
    head = {"id": 1, "type": "analyse", "round": 1, "config": dict(config)}
    (folder / "request" / "head.json").write_bytes(canonical_json(head))
    return folder
