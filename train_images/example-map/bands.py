"""One patient's row: which share of the body on a chest CT is lung, fat and bone, and how much of the lung is very dark.

The body is every voxel denser than air that lies, in its row of the slice, between two that are skin or denser; the table under
the patient is counted with it. Rough on purpose: it is an example of a map train, and no measurement for patients. The share of
lung below -950 HU is the usual measure of emphysema (%LAA-950: Gevenois et al., Am J Respir Crit Care Med 154:187, 1996).
"""

import csv
import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATA = Path("/train/data")
SKIN_HU, LUNG_HU, FAT_HU, BONE_HU = -300, (-1000, -500), (-190, -30), 200
NIFTI_INT16 = 4


def main() -> None:
    """Read the request and the patient, write the row."""
    config = json.loads(Path("request/head.json").read_text())["config"]
    datalist = json.loads((DATA / "datalist.json").read_text())
    images = [DATA / entry["image"] for entry in [*datalist["training"], *datalist["validation"]]]
    counts = np.zeros(5, np.int64)
    for image in images:
        counts += bands(volume(image), int(config.get("emphysema_hu", -950)))
    Path("reply/row.json").write_text(json.dumps(row(counts)))


def volume(path: Path) -> NDArray[np.int16]:
    """Return the Hounsfield units, slice after slice, mapped and not read."""
    with path.open("rb") as file:
        head = file.read(352)
    columns, rows, slices = struct.unpack_from("<3h", head, 42)
    (kind,) = struct.unpack_from("<h", head, 70)
    if kind != NIFTI_INT16:
        raise ValueError("a station's volumes are int16")
    return np.memmap(path, np.dtype("<i2"), "r", offset=352, shape=(slices, rows, columns))


def bands(hounsfield: NDArray[np.int16], emphysema_hu: int) -> NDArray[np.int64]:
    """Count voxels: body, lung, fat, bone, and lung below `emphysema_hu`."""
    counts = np.zeros(5, np.int64)
    for values in hounsfield:
        dense = values > SKIN_HU
        inside = np.maximum.accumulate(dense, axis=1) & np.maximum.accumulate(dense[:, ::-1], axis=1)[:, ::-1]
        found = values[inside]
        lung = found[(found >= LUNG_HU[0]) & (found < LUNG_HU[1])]
        fat = np.count_nonzero((found >= FAT_HU[0]) & (found <= FAT_HU[1]))
        bone = np.count_nonzero(found >= BONE_HU)
        counts += (found.size, lung.size, fat, bone, np.count_nonzero(lung < emphysema_hu))
    return counts


def row(counts: NDArray[np.int64]) -> dict[str, float | str | None]:
    """Return the row, or the error that the manifest declares where there is no body."""
    body, lung, fat, bone, dark = (int(count) for count in counts)
    if body == 0:
        return {"error": "NO_BODY"}
    shares = {"lung_share": lung / body, "fat_share": fat / body, "bone_share": bone / body}
    return {**shares, "low_attenuation_share": dark / lung if lung else None, "sex": sex()}


def sex() -> str | None:
    """Return what the clinical table says, where it is one of the two that the manifest names."""
    with (DATA / "clinical.csv").open(encoding="utf-8", newline="") as file:
        said = {line["sex"] for line in csv.DictReader(file)} & {"F", "M"}
    return said.pop() if len(said) == 1 else None


if __name__ == "__main__":
    main()
