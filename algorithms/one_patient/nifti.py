"""Reads the volumes that a station lays out: uncompressed NIfTI-1, int16 Hounsfield units or uint8 label maps, memory-mapped.

Needs numpy alone, for a map program is started once per patient. What a header says is checked against the file's size and
against itself before a voxel is read; anything else than a station writes is refused rather than guessed at.
"""

import struct
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]

_HEADER_BYTES: Final = 348
_MAGIC: Final = b"n+1\0"
_KINDS: Final[dict[int, np.dtype[Any]]] = {2: np.dtype("u1"), 4: np.dtype("<i2")}
_SIDES: Final = 3
_RIGHT_ANGLE: Final = 1e-3
_STEP_MM: Final = (0.05, 20.0)


class NotAVolumeError(ValueError):
    """A file that is no volume as stations write them."""


@dataclass(frozen=True, slots=True)
class Volume:
    """Voxels and where they lie.

    Attributes:
        voxels: by voxel index along the three axes of `affine`.
        affine: (4, 4), from voxel indices to millimetres: x to the right, y to the front, z to the head (RAS).
    """

    voxels: NDArray[Any]
    affine: Affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Millimetres from voxel to voxel along each axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


def read_volume(path: Path) -> Volume:
    """Map a volume; nothing is read but its header.

    Raises:
        NotAVolumeError: the file is none, or not of the size that its header says.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    if len(head) < _HEADER_BYTES or head[-4:] != _MAGIC or head[:4] != struct.pack("<i", _HEADER_BYTES):
        raise NotAVolumeError("not an uncompressed little-endian NIfTI-1 file")
    dimensions = struct.unpack_from("<8h", head, 40)
    shape = dimensions[1 : 1 + _SIDES]
    if dimensions[0] != _SIDES or min(shape) < 1:
        raise NotAVolumeError("does not have three dimensions")
    kind, bits = struct.unpack_from("<hh", head, 70)
    offset, slope, intercept = struct.unpack_from("<3f", head, 108)
    if kind not in _KINDS or bits != 8 * _KINDS[kind].itemsize:
        raise NotAVolumeError("voxels are neither int16 nor uint8")
    if (slope, intercept) not in {(1.0, 0.0), (0.0, 0.0)} or struct.unpack_from("<h", head, 254)[0] < 1:
        raise NotAVolumeError("voxels are scaled, or it is not said where they lie")
    if not (_HEADER_BYTES <= offset <= 1 << 20 and offset.is_integer()):
        raise NotAVolumeError("voxels begin at no sensible place")
    if path.stat().st_size != int(offset) + int(np.prod(shape, dtype=np.int64)) * _KINDS[kind].itemsize:
        raise NotAVolumeError("the file does not have the size that its header says")
    affine = np.eye(4)
    affine[:3] = np.array(struct.unpack_from("<12f", head, 280), np.float64).reshape(3, 4)
    _check_axes(affine)
    return Volume(np.memmap(path, _KINDS[kind], "r", int(offset), shape, order="F"), affine)


def _check_axes(affine: Affine) -> None:
    """Refuse axes that are not at right angles, or steps that no scanner takes."""
    if not np.isfinite(affine).all():
        raise NotAVolumeError("its affine has values that are no numbers")
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if steps.min() < _STEP_MM[0] or steps.max() > _STEP_MM[1]:
        raise NotAVolumeError("its voxels are smaller or larger than any scanner's")
    turned = affine[:3, :3] / steps
    if np.abs(turned.T @ turned - np.eye(3)).max() > _RIGHT_ANGLE:
        raise NotAVolumeError("its axes are not at right angles")


def upright(volume: Volume) -> Volume:
    """Return the same volume with its axes in the order and direction that come closest to RAS. Copies nothing.

    An axial, a coronal and a mirrored stack of one patient become alike; an oblique one keeps its angle, in the affine.

    >>> stack = Volume(np.arange(6).reshape(1, 2, 3), np.diag([-1.0, 1.0, 2.0, 1.0]))
    >>> upright(stack).affine.diagonal().tolist()
    [1.0, 1.0, 2.0, 1.0]
    """
    axes = volume.affine[:3, :3] / np.array(volume.spacing_mm)
    order = max(
        permutations(range(_SIDES)),
        key=lambda chosen: sum(abs(axes[world, axis]) for world, axis in enumerate(chosen)),
    )
    voxels = volume.voxels.transpose(order)
    affine = volume.affine[:, [*order, _SIDES]].copy()
    for axis in range(_SIDES):
        if affine[axis, axis] < 0:
            voxels = np.flip(voxels, axis)
            affine[:3, _SIDES] += affine[:3, axis] * (voxels.shape[axis] - 1)
            affine[:3, axis] *= -1
    return Volume(voxels, affine)
