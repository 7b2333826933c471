"""Reads an untrusted NIfTI mask and writes it anew on the grid of its series: voxels, a geometry, and nothing else.

Everything is bounded before it is read: the header says how many voxels there are, the series says how many there must be, and
only then is anything inflated. Axes may be in another order or turned over, as converters leave them; that moves voxels
and changes none. Nothing is resampled. What the old header said in words is not carried over.
"""

import gzip
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from station.intake.clinical.labels.faults import LabelError, LabelFault
from station.intake.clinical.labels.geometry import SeriesGrid

MAX_FILE_BYTES = 512 << 20
MAX_VOXELS = 512 << 20
MAX_NAMES = 255
# nibabel is not typed.
_NIBABEL = cast("Any", nibabel)
_GZIP = b"\x1f\x8b"
_MAX_OFFSET = 1 << 20
_HEADER_BYTES = 540
_ON_GRID = 0.05
"""In voxels: how far a corner may lie off the series' grid."""


def aligned_mask(path: Path, grid: SeriesGrid, names: int) -> bytes:
    """Return a mask as an uncompressed NIfTI-1 file, uint8, on its series' own grid.

    Args:
        path: the file, as somebody sent it.
        grid: of the series that it was drawn on.
        names: how many values above 0 have a name.

    Raises:
        LabelError: the file is no such mask.
    """
    if int(np.prod(grid.shape, dtype=np.int64)) > MAX_VOXELS or path.stat().st_size > MAX_FILE_BYTES:
        raise LabelError(LabelFault.TOO_LARGE)
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == _GZIP
            raw.seek(0)
            if not zipped:
                return _written(_read(raw, grid, names), grid)
            with gzip.GzipFile(fileobj=raw) as inflated:
                return _written(_read(inflated, grid, names), grid)
    except (HeaderDataError, EOFError, zlib.error, gzip.BadGzipFile, KeyError, ValueError, OverflowError):
        # What they say quotes the file.
        pass
    raise LabelError(LabelFault.NOT_NIFTI)


def _read(file: BinaryIO | gzip.GzipFile, grid: SeriesGrid, names: int) -> NDArray[np.uint8]:
    """Return the voxels as (columns, rows, slices)."""
    start = file.read(_HEADER_BYTES)
    header = _header(start)
    shape = _shape(header, grid)
    dtype = header.get_data_dtype()
    slope, intercept = header.get_slope_inter()
    if (
        dtype.kind not in "iuf"
        or dtype.itemsize > 8
        or slope not in {None, 1.0}
        or intercept not in {None, 0.0}
    ):
        raise LabelError(LabelFault.VOXEL_TYPE)
    offset = int(header.get_data_offset())
    if not header.sizeof_hdr <= offset <= _MAX_OFFSET:
        raise LabelError(LabelFault.NOT_NIFTI)
    rest = start[offset:] if offset < len(start) else b""
    _exactly(file, max(0, offset - len(start)))
    stored = np.zeros(shape[::-1], np.uint8)
    for plane in stored:
        wanted = plane.size * dtype.itemsize
        data, rest = rest[:wanted], rest[wanted:]
        data += _exactly(file, wanted - len(data))
        plane[...] = _labels(np.frombuffer(data, dtype).reshape(plane.shape), names)
    if rest or file.read(1):
        raise LabelError(LabelFault.NOT_NIFTI)
    # NIfTI's first axis is the fastest.
    voxels = stored.transpose(2, 1, 0)
    return voxels if grid.affine is None else _placed(voxels, header.get_best_affine(), grid)


def _header(start: bytes) -> Any:  # noqa: ANN401 - a nibabel header
    for kind, size in ((_NIBABEL.Nifti1Header, 348), (_NIBABEL.Nifti2Header, 540)):
        if len(start) >= size and size in {int.from_bytes(start[:4], order) for order in ("little", "big")}:
            # Unchecked: its checks log what they find, and that is the file's.
            header = kind.from_fileobj(BytesIO(start[:size]), check=False)
            if header["magic"].item().startswith(b"n+"):
                return header
    raise LabelError(LabelFault.NOT_NIFTI)


def _shape(header: Any, grid: SeriesGrid) -> tuple[int, int, int]:  # noqa: ANN401
    found = [int(size) for size in header.get_data_shape()]
    while len(found) > 3 and found[-1] == 1:
        found.pop()
    found += [1] * (3 - len(found))
    columns, rows, slices = (*found, 0, 0, 0)[:3]
    ordered = (columns, rows, slices) if grid.affine is None else tuple(sorted(found))
    if len(found) != 3 or ordered != (grid.shape if grid.affine is None else tuple(sorted(grid.shape))):
        raise LabelError(LabelFault.SHAPE_DIFFERS)
    return columns, rows, slices


def _exactly(file: BinaryIO | gzip.GzipFile, count: int) -> bytes:
    data = file.read(count) if count else b""
    if len(data) != count:
        raise LabelError(LabelFault.NOT_NIFTI)
    return data


def _labels(values: NDArray[Any], names: int) -> NDArray[np.uint8]:
    if not np.isfinite(values).all() or (values < 0).any() or (values != np.trunc(values)).any():
        raise LabelError(LabelFault.NOT_WHOLE_NUMBERS)
    if values.size and values.max() > names:
        raise LabelError(LabelFault.VALUE_WITHOUT_NAME)
    return values.astype(np.uint8)


def _placed(voxels: NDArray[np.uint8], affine: NDArray[np.float64], grid: SeriesGrid) -> NDArray[np.uint8]:
    """Exchange and turn over axes, as the two affines say, so that each voxel lies where its series has it."""
    if grid.affine is None:
        return voxels
    if not np.isfinite(affine).all():
        raise LabelError(LabelFault.GRID_DIFFERS)
    # From a voxel of the mask to one of the series.
    step = np.linalg.inv(grid.affine) @ affine
    turn = np.rint(step[:3, :3])
    if not (np.abs(turn).sum(axis=0) == 1).all() or not (np.abs(turn).sum(axis=1) == 1).all():
        raise LabelError(LabelFault.GRID_DIFFERS)
    axes = [int(np.flatnonzero(turn[axis])[0]) for axis in range(3)]
    placed = voxels.transpose(axes)
    if placed.shape != grid.shape:
        raise LabelError(LabelFault.SHAPE_DIFFERS)
    backwards = [axis for axis in range(3) if turn[axis].sum() < 0]
    offset = [grid.shape[axis] - 1 if axis in backwards else 0 for axis in range(3)]
    ends = np.array(np.meshgrid(*[(0, size - 1) for size in voxels.shape], indexing="ij")).reshape(3, -1)
    there = step[:3, :3] @ ends + step[:3, 3:]
    meant = turn @ ends + np.array(offset)[:, np.newaxis]
    if np.abs(there - meant).max() > _ON_GRID:
        raise LabelError(LabelFault.GRID_DIFFERS)
    return np.flip(placed, tuple(backwards))


def _written(voxels: NDArray[np.uint8], grid: SeriesGrid) -> bytes:
    affine = np.eye(4) if grid.affine is None else grid.affine
    image = _NIBABEL.Nifti1Image(np.ascontiguousarray(voxels), affine, dtype=np.uint8)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner", strip_shears=True)
    image.header.set_xyzt_units("mm")
    return bytes(image.to_bytes())
