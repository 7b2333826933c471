"""Opens an uncompressed NIfTI-1 volume without reading it: the header is judged, the voxels stay on the disk until asked for.

Read with nibabel's header class; judged here, since a header is a claim: what it says must be what the file holds. Refused with what
to do: another format, compressed or big-endian files, more or fewer than three axes, voxels of another kind than a CT or a label
map has, sizes that lie, a truncated file, scaling or a geometry that says nothing, `qform` and `sform` that disagree.
"""

import io
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.orientations import apply_orientation
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from algorithms.volumes.errors import VolumeError
from algorithms.volumes.grids import Affine, Grid

_HEADER_BYTES: Final = 348
_KINDS: Final[dict[int, np.dtype[Any]]] = {2: np.dtype("<u1"), 4: np.dtype("<i2"), 512: np.dtype("<u2")}
"""Voxels by NIfTI's code: label maps and CTs."""

_MAX_VOXELS: Final = 1 << 32
_SPACING_MM: Final = (0.01, 100.0)
_RIGHT_ANGLE: Final = 1e-3
_FORMS_APART_MM: Final = 0.1
_UNITS: Final = ("mm", "unknown")


@dataclass(frozen=True, slots=True)
class MappedVolume:
    """A volume whose voxels are on the disk.

    Attributes:
        path: of the file.
        dtype: of the stored voxels.
        offset: of the first voxel in the file, bytes.
        slope, intercept: what makes a value of a stored one: `slope * stored + intercept`.
        stored_grid: axes as they are stored.
        grid: the same voxels in RAS order, in which everything is read.
    """

    path: Path
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    stored_grid: Grid
    grid: Grid

    @property
    def scaled(self) -> bool:
        """Whether a stored value is another than the value."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    def stored(self) -> NDArray[Any]:
        """Return the stored voxels in stored order, mapped and read-only."""
        return np.memmap(self.path, self.dtype, "r", self.offset, self.stored_grid.shape, "F")

    def voxels(self) -> NDArray[Any]:
        """Return the stored voxels in RAS order: a view of the map, of which nothing is read yet."""
        return np.asarray(apply_orientation(self.stored(), self.stored_grid.orientation))  # type: ignore[no-untyped-call]

    def values(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return what stored voxels mean: themselves, or float32 where the file has a scaling."""
        if not self.scaled:
            return stored
        return stored.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)


def open_volume(path: str | os.PathLike[str]) -> MappedVolume:
    """Open a volume; a file that has not changed is judged once.

    Raises:
        VolumeError: it cannot be read, or not like this.
    """
    file = Path(path)
    try:
        status = file.stat()
    except OSError as error:
        raise VolumeError(
            f"{file.name} cannot be opened ({error.strerror}): is it listed and there?"
        ) from error
    return _opened(file, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=4096)
def _opened(path: Path, size: int, _changed_ns: int, _inode: int) -> MappedVolume:
    name = path.name
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError as error:
        raise VolumeError(f"{name} cannot be read ({error.strerror})") from error
    header = _header(name, head)
    dtype = _KINDS.get(int(header["datatype"]))
    if dtype is None:
        raise VolumeError(f"{name} has voxels of another kind than uint8, int16 and uint16: convert them")
    shape = _shape(name, header)
    offset = _offset(name, header)
    needed = offset + math.prod(shape) * dtype.itemsize
    if needed != size:
        raise VolumeError(
            f"{name} has {size} bytes and its header speaks of {needed}: it was cut off or changed; write it again"
        )
    slope, intercept = _scaling(name, header)
    grid = Grid(shape, _affine(name, header, shape))
    return MappedVolume(path, dtype, offset, slope, intercept, grid, grid.in_ras_order())


def _header(name: str, head: bytes) -> Nifti1Header:
    if head[:2] == b"\x1f\x8b":
        raise VolumeError(f"{name} is compressed and cannot be mapped: decompress it (gunzip)")
    if len(head) < _HEADER_BYTES or head[344:348] != b"n+1\0":
        raise VolumeError(f"{name} is no single-file NIfTI-1: convert it, uncompressed (.nii)")
    if int.from_bytes(head[:4], "little") != _HEADER_BYTES:
        raise VolumeError(f"{name} is big-endian: convert it to little-endian")
    try:
        return Nifti1Header.from_fileobj(io.BytesIO(head), endianness="<", check=False)  # type: ignore[no-any-return, no-untyped-call]
    except (WrapStructError, HeaderDataError) as error:
        raise VolumeError(f"{name} has a header that is none of NIfTI-1") from error


def _shape(name: str, header: Nifti1Header) -> tuple[int, int, int]:
    sizes = [int(size) for size in header["dim"]]
    axes = sizes[0]
    shape = sizes[1 : axes + 1]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if not 3 <= axes <= 7 or len(shape) != 3 or min(shape) < 1 or math.prod(shape) > _MAX_VOXELS:
        raise VolumeError(f"{name} is no volume of three axes: its header says {axes} axes of {shape}")
    return shape[0], shape[1], shape[2]


def _offset(name: str, header: Nifti1Header) -> int:
    offset = float(header["vox_offset"])
    if not (math.isfinite(offset) and offset.is_integer() and offset >= _HEADER_BYTES + 4):
        raise VolumeError(
            f"{name} says that its voxels begin at byte {offset}, which is in its header or nowhere"
        )
    return int(offset)


def _scaling(name: str, header: Nifti1Header) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    # The standard: a slope of 0 is no scaling at all.
    if slope == 0:
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise VolumeError(f"{name} scales its voxels by {slope} and {intercept}, which are no numbers")
    return slope, intercept


def _affine(name: str, header: Nifti1Header, shape: tuple[int, int, int]) -> Affine:
    try:
        units = header.get_xyzt_units()[0]  # type: ignore[no-untyped-call]
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)  # type: ignore[no-untyped-call]
        forms = [int(header[name]) > 0 for name in ("sform_code", "qform_code")]
        other = np.asarray(header.get_qform(), dtype=np.float64) if all(forms) else affine  # type: ignore[no-untyped-call]
    except (HeaderDataError, ValueError, KeyError, np.linalg.LinAlgError) as error:
        raise VolumeError(f"{name} has a geometry that cannot be read ({error})") from error
    if not any(forms):
        raise VolumeError(f"{name} does not say where it lies: it has neither a qform nor an sform")
    if units not in _UNITS:
        raise VolumeError(f"{name} is measured in {units}: convert it to millimetres")
    _judge_axes(name, affine)
    corner = np.array([*(np.asarray(shape) - 1), 1.0])
    apart = max(
        float(np.abs((affine - other)[:3, 3]).max()), float(np.abs(((affine - other) @ corner)[:3]).max())
    )
    if not apart <= _FORMS_APART_MM:
        raise VolumeError(f"{name} has a qform and an sform that disagree: keep the one that is right")
    return affine


def _judge_axes(name: str, affine: Affine) -> None:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    least, most = _SPACING_MM
    if not (np.isfinite(affine).all() and (lengths >= least).all() and (lengths <= most).all()):
        raise VolumeError(f"{name} has a geometry that is none: spacing {lengths} mm")
    axes = affine[:3, :3] / lengths
    if np.abs(axes.T @ axes - np.eye(3)).max() > _RIGHT_ANGLE:
        raise VolumeError(f"{name} has axes that are not at right angles: resample it to such a grid first")
