"""Write images as uncompressed NIfTI-1 files (Cox et al. 2004, ``nifti1.h``), byte for byte the same each time.

All text fields stay empty: `descrip`, `aux_file`, `db_name` and the like are where tools leak names and paths.
"""

import math
import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 348
VOXEL_OFFSET = 352
_DATA_TYPES: Final = {"uint8": 2, "int16": 4, "uint16": 512}
_RIGHT_ANGLE: Final = 1e-6
_UNITS_MM = 2
_SCANNER_ANATOMICAL = 1


def encode(pixels: NDArray[np.uint16], spacing_mm: tuple[float, float]) -> bytes:
    """Return the file's bytes.

    On disk the first NIfTI axis runs along a row (x, width) and the second down a column (y, height), so the voxel
    bytes are the image's rows in order, and readers (nibabel, MONAI `LoadImage`) give an array of shape
    (width, height): transpose it to look at it. The affine is the one ITK writes for a plain picture: identity in
    DICOM's LPS, so diag(-1, -1, 1) times the spacing in NIfTI's RAS; viewers then show it upright.

    Args:
        pixels: (height, width), 0 black to 65535 white.
        spacing_mm: (row spacing, column spacing) as in DICOM; millimetres.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint16:
        raise ValueError("a radiograph is a 2-D uint16 array")
    height, width = pixels.shape
    row_mm, column_mm = spacing_mm
    affine = np.diag([-column_mm, -row_mm, 1.0, 1.0])
    return header((width, height), affine, pixels.dtype) + pixels.astype("<u2", copy=False).tobytes(order="C")


def header(shape: tuple[int, ...], affine: NDArray[np.float64], dtype: np.dtype[Any]) -> bytes:
    """Return everything before the voxels, which follow with the first axis fastest: a volume's slices one by one.

    Both forms of the orientation are written and say the same.

    Args:
        shape: 2-D or 3-D.
        affine: from voxel indices to RAS millimetres; axes at right angles, not mirrored.
        dtype: of the voxels, little-endian on disk.
    """
    axes = affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    rotation = axes / spacing
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > _RIGHT_ANGLE or np.linalg.det(rotation) < 0:
        raise ValueError("the axes are not at right angles, or mirrored")
    dimensions = (len(shape), *shape, *[1] * (7 - len(shape)))
    data = struct.pack("<i", HEADER_BYTES) + bytes(36) + struct.pack("<8h", *dimensions)
    data += bytes(14) + struct.pack("<hhh", _DATA_TYPES[dtype.name], 8 * dtype.itemsize, 0)
    data += struct.pack("<8f", 1.0, *spacing, 1.0, 1.0, 1.0, 1.0)
    data += struct.pack("<fffhBB", VOXEL_OFFSET, 1.0, 0.0, 0, 0, _UNITS_MM)
    data += bytes(24 + 80 + 24)
    data += struct.pack("<hh", _SCANNER_ANATOMICAL, _SCANNER_ANATOMICAL)
    data += struct.pack("<6f", *_quaternion(rotation), *affine[:3, 3])
    data += struct.pack("<12f", *affine[:3].ravel())
    data += bytes(16) + b"n+1\0"
    return data + bytes(VOXEL_OFFSET - HEADER_BYTES)


def _quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return b, c, d of the unit quaternion with a >= 0 (Shepperd 1978: divide by the largest component only)."""
    trace = float(np.trace(rotation))
    squares = np.array([trace, *(2 * np.diag(rotation) - trace)])
    largest = int(np.argmax(squares))
    twice = math.sqrt(1.0 + float(squares[largest]))
    r = rotation
    full = {
        0: (twice**2, r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]),
        1: (r[2, 1] - r[1, 2], twice**2, r[0, 1] + r[1, 0], r[0, 2] + r[2, 0]),
        2: (r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], twice**2, r[1, 2] + r[2, 1]),
        3: (r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], twice**2),
    }[largest]
    a, b, c, d = (float(value) / (2 * twice) for value in full)
    sign = -1.0 if a < 0 else 1.0
    return sign * b, sign * c, sign * d
