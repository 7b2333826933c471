"""What is measured of one patient's radiographs. Replace it by your own.

The names are those of `outputs.rows.columns` in train.yaml. Images are NIfTI of 16 bits
without compression, 0 black to 65535 white: values start at byte 352 and are mapped.
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_UINT16 = 512
_WHITE = 65535.0


def row(
    images: list[Path], settings: dict[str, float]
) -> dict[str, float | str | None]:
    """Return the row: how much is brighter than a threshold, how much values vary."""
    pixels = np.concatenate([_pixels(image).ravel() / _WHITE for image in images])
    if not pixels.any():
        return {"error": "BLANK_IMAGE"}
    return {
        "bright_share": float(np.mean(pixels > settings["threshold"])),
        "contrast": float(pixels.std()),
    }


def _pixels(image: Path) -> NDArray[np.uint16]:
    with image.open("rb") as file:
        head = file.read(352)
    columns, rows = struct.unpack_from("<2h", head, 42)
    (kind,) = struct.unpack_from("<h", head, 70)
    if kind != _UINT16:
        raise ValueError("a station's radiographs are uint16")
    return np.memmap(image, np.dtype("<u2"), "r", offset=352, shape=(rows, columns))
