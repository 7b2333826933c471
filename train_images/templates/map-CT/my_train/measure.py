"""What is measured of one patient's CT. Replace it by your own.

The names are those of `outputs.rows.columns` in train.yaml. Volumes are NIfTI of 16 bits
without compression, in Hounsfield units: values start at byte 352 and are mapped.
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_INT16 = 4
_BODY_HU = -300


def row(
    images: list[Path], settings: dict[str, float]
) -> dict[str, float | str | None]:
    """Return the row: how much of the body is air, and how dense that air is.

    Air is within the body where, in its row of the slice, it lies between tissue: rough
    on purpose, and no measurement for patients.
    """
    body, air, total_hu = 0, 0, 0.0
    for image in images:
        for values in _volume(image):
            dense = values > _BODY_HU
            inside = (
                np.maximum.accumulate(dense, axis=1)
                & np.maximum.accumulate(dense[:, ::-1], axis=1)[:, ::-1]
            )
            found = values[inside]
            dark = found[found < settings["air_hu"]]
            body, air, total_hu = (
                body + found.size,
                air + dark.size,
                total_hu + float(dark.sum(dtype=np.int64)),
            )
    if not body:
        return {"error": "NO_BODY"}
    return {"air_share": air / body, "mean_air_hu": total_hu / air if air else None}


def _volume(image: Path) -> NDArray[np.int16]:
    with image.open("rb") as file:
        head = file.read(352)
    columns, rows, slices = struct.unpack_from("<3h", head, 42)
    (kind,) = struct.unpack_from("<h", head, 70)
    if kind != _INT16:
        raise ValueError("a station's volumes are int16")
    return np.memmap(
        image, np.dtype("<i2"), "r", offset=352, shape=(slices, rows, columns)
    )
