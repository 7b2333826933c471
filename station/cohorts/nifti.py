"""Write one 2-D image as an uncompressed NIfTI-1 file (Cox et al. 2004, ``nifti1.h``), byte for byte the same each time.

All text fields stay empty: `descrip`, `aux_file`, `db_name` and the like are where tools leak names and paths.
"""

import struct

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 348
VOXEL_OFFSET = 352
_UINT16 = 512
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
    header = struct.pack("<i", HEADER_BYTES) + bytes(36)
    header += struct.pack("<8h", 2, width, height, 1, 1, 1, 1, 1)
    header += bytes(14) + struct.pack("<hhh", _UINT16, 16, 0)
    # qfac 1: with the quaternion (0, 0, 1) a half turn about z, which is diag(-1, -1, 1).
    header += struct.pack("<8f", 1.0, column_mm, row_mm, 1.0, 1.0, 1.0, 1.0, 1.0)
    header += struct.pack("<fffhBB", VOXEL_OFFSET, 1.0, 0.0, 0, 0, _UNITS_MM)
    header += bytes(24 + 80 + 24)
    header += struct.pack("<hh", _SCANNER_ANATOMICAL, _SCANNER_ANATOMICAL)
    header += struct.pack("<6f", 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    header += struct.pack("<12f", -column_mm, 0, 0, 0, 0, -row_mm, 0, 0, 0, 0, 1.0, 0)
    header += bytes(16) + b"n+1\0"
    return header + bytes(VOXEL_OFFSET - HEADER_BYTES) + pixels.astype("<u2", copy=False).tobytes(order="C")
