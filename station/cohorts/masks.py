"""From a mask's file to a label map on its volume's own grid: exactly, or not at all; nothing is resampled.

Two forms are read: a DICOM Segmentation (PS3.3 A.51), binary or label map, and a NIfTI-1 file. Axes may be in another
order or run the other way, as converters leave them: that moves voxels and changes none.

This code meets hostile files: it runs in `station.cohorts.decoder_process` only.
"""

import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any, Final

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from station.cohorts.reading import found, parse
from station.cohorts.series import VolumeGrid
from station.cohorts.unusable import Unusable, UnusableImage

SEGMENTATION_CLASSES: Final = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
MAX_MASK_VOXELS: Final = 512 << 20
MAX_FRAMES: Final = 100_000

# In voxels: a mask's grid is the volume's where no corner lies further off.
_ON_GRID: Final = 0.02
_COSINE_TOLERANCE: Final = 1e-3

LabelMap = NDArray[np.uint8]


def read_mask(data: bytes, form: str, grid: VolumeGrid, values: Mapping[int, int]) -> LabelMap:
    """Return a mask as (slices, rows, columns) of the volume.

    Args:
        data: the file.
        form: ``dicom-seg`` or ``nifti``.
        grid: of the volume that it was drawn on.
        values: what becomes of the file's values or segment numbers; those missing here are not wanted and become 0.

    Raises:
        UnusableImage: the file is no such mask, does not lie on the grid, or its segments overlap.
    """
    columns, rows, slices = grid.shape
    if columns * rows * slices > MAX_MASK_VOXELS:
        raise UnusableImage(Unusable.TOO_LARGE)
    with found(Unusable.MASK_INVALID):
        if form != "nifti":
            return _read_segmentation(data, grid, values)
        try:
            return _read_nifti(data, grid, values)
        except (WrapStructError, HeaderDataError, ImageFileError) as error:
            raise UnusableImage(Unusable.MASK_INVALID) from error


def _read_nifti(data: bytes, grid: VolumeGrid, values: Mapping[int, int]) -> LabelMap:
    if data[:2] == b"\x1f\x8b":
        inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
        # As many bytes as the widest voxels of this volume take; any other volume's mask is of no use.
        data = inflater.decompress(data, 8 * int(np.prod(grid.shape)) + (1 << 20))
        if not inflater.eof:
            raise UnusableImage(Unusable.MASK_GRID if inflater.unconsumed_tail else Unusable.MASK_INVALID)
    header = nibabel.Nifti1Header.from_fileobj(BytesIO(data[:348]))  # type: ignore[no-untyped-call]
    shape = tuple(int(size) for size in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if sorted(shape) != sorted(grid.shape):
        raise UnusableImage(Unusable.MASK_GRID)
    dtype = header.get_data_dtype()
    if (
        dtype.kind not in "iuf"
        or header.get_slope_inter()[0] not in {None, 1.0}
        or header.get_slope_inter()[1]
    ):
        raise UnusableImage(Unusable.MASK_INVALID)
    voxels = np.frombuffer(data, dtype=dtype, count=int(np.prod(shape)), offset=int(header.get_data_offset()))
    # NIfTI's first axis is the fastest.
    stored = voxels.reshape(shape[::-1]).transpose(2, 1, 0)
    placed = _onto(stored, header.get_best_affine(), grid).transpose(2, 1, 0)
    return _translated(placed, values)


def _onto(stored: NDArray[Any], affine: NDArray[np.float64], grid: VolumeGrid) -> NDArray[Any]:
    """Return (columns, rows, slices), with axes exchanged and turned over as the two affines say."""
    step = np.linalg.inv(grid.affine) @ affine
    turn = np.rint(step[:3, :3])
    if (
        not np.isfinite(step).all()
        or not (np.abs(turn).sum(axis=0) == 1).all()
        or abs(np.linalg.det(turn)) != 1
    ):
        raise UnusableImage(Unusable.MASK_GRID)
    axes = [int(np.flatnonzero(turn[axis])[0]) for axis in range(3)]
    placed = stored.transpose(axes)
    if placed.shape != grid.shape:
        raise UnusableImage(Unusable.MASK_GRID)
    backwards = [axis for axis in range(3) if turn[axis].sum() < 0]
    # Both ends of every axis: what agrees there agrees between.
    ends = np.array(np.meshgrid(*[(0, size - 1) for size in stored.shape], indexing="ij")).reshape(3, -1)
    there = step[:3, :3] @ ends + step[:3, 3:]
    expected = turn @ ends + np.array(
        [[grid.shape[axis] - 1 if axis in backwards else 0] for axis in range(3)]
    )
    if np.abs(there - expected).max() > _ON_GRID:
        raise UnusableImage(Unusable.MASK_GRID)
    flipped: NDArray[Any] = np.flip(placed, tuple(backwards))
    return flipped


def _translated(stored: NDArray[Any], values: Mapping[int, int]) -> LabelMap:
    """Map values plane by plane: a whole volume of wide integers would take too much memory."""
    result = np.zeros(stored.shape, np.uint8)
    for plane, made in zip(stored, result, strict=True):
        whole = plane.astype(np.int64)
        if not np.array_equal(whole, plane) or whole.min() < 0 or whole.max() > np.iinfo(np.uint16).max:
            raise UnusableImage(Unusable.MASK_INVALID)
        for source, wanted in values.items():
            made[whole == source] = wanted
    return result


def _read_segmentation(data: bytes, grid: VolumeGrid, values: Mapping[int, int]) -> LabelMap:
    dataset = parse(data)
    if str(dataset.SOPClassUID) not in SEGMENTATION_CLASSES:
        raise UnusableImage(Unusable.MASK_INVALID)
    columns, rows, slices = grid.shape
    if (int(dataset.Rows), int(dataset.Columns)) != (rows, columns):
        raise UnusableImage(Unusable.MASK_GRID)
    kind = str(dataset.SegmentationType)
    result = np.zeros((slices, rows, columns), np.uint8)
    seen: set[int] = set()
    for group, frame in _frames(dataset, kind):
        index = _slice_of(dataset, group, grid)
        if kind == "LABELMAP":
            if index in seen:
                raise UnusableImage(Unusable.MASK_OVERLAP)
            seen.add(index)
            result[index] = _translated(frame[np.newaxis], values)[0]
            continue
        segment = int(_item(dataset, group, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        wanted = values.get(segment, 0)
        if not wanted:
            continue
        inside = frame != 0
        if (result[index][inside] != 0).any():
            raise UnusableImage(Unusable.MASK_OVERLAP)
        result[index][inside] = wanted
    return result


def _frames(dataset: Any, kind: str) -> Iterator[tuple[Any, NDArray[Any]]]:  # noqa: ANN401 - pydicom is not typed here
    """Yield each frame's functional groups and its pixels."""
    groups = dataset.PerFrameFunctionalGroupsSequence
    rows, columns, count = (
        int(dataset.Rows),
        int(dataset.Columns),
        int(dataset.get("NumberOfFrames", None) or 1),
    )
    allocated = int(dataset.BitsAllocated)
    if (
        not 1 <= count <= MAX_FRAMES
        or len(groups) != count
        or dataset.file_meta.TransferSyntaxUID.is_encapsulated
    ):
        raise UnusableImage(Unusable.MASK_INVALID)
    if (kind, allocated) not in {("BINARY", 1), ("LABELMAP", 8), ("LABELMAP", 16)}:
        # A fractional segmentation is no mask: somebody would have to choose a threshold.
        raise UnusableImage(Unusable.MASK_INVALID)
    pixels = np.frombuffer(dataset.PixelData, np.uint8)
    size = rows * columns
    for number, group in enumerate(groups):
        if allocated == 1:
            # Frames follow bit by bit, least significant first, not starting on whole bytes (PS3.5 8.1.1).
            first = number * size
            bits = np.unpackbits(pixels[first // 8 : (first + size + 7) // 8], bitorder="little")
            frame: NDArray[Any] = bits[first % 8 : first % 8 + size]
        else:
            wide = allocated // 8
            frame = pixels[number * size * wide : (number + 1) * size * wide].view(f"<u{wide}")
        yield group, frame.reshape(rows, columns)


def _slice_of(dataset: Any, group: Any, grid: VolumeGrid) -> int:  # noqa: ANN401
    """Return the slice that a frame lies on."""
    axes = np.array(grid.axes)
    spacing = np.linalg.norm(axes, axis=1)
    directions = axes / spacing[:, np.newaxis]
    orientation = _numbers(_item(dataset, group, "PlaneOrientationSequence").ImageOrientationPatient, 6)
    down_mm, across_mm = _numbers(_item(dataset, group, "PixelMeasuresSequence").PixelSpacing, 2)
    position = _numbers(_item(dataset, group, "PlanePositionSequence").ImagePositionPatient, 3)
    if np.abs(orientation.reshape(2, 3) - directions[:2]).max() > _COSINE_TOLERANCE:
        raise UnusableImage(Unusable.MASK_GRID)
    columns, rows, slices = grid.shape
    # A frame that is narrower by a hair is off by that hair times its pixels at the far end.
    ends = abs(across_mm - spacing[0]) * columns / spacing[0], abs(down_mm - spacing[1]) * rows / spacing[1]
    offset = directions @ (position - np.array(grid.origin)) / spacing
    index = int(np.rint(offset[2]))
    off = max(abs(offset[0]), abs(offset[1]), abs(offset[2] - index), *ends)
    if off > _ON_GRID or not 0 <= index < slices:
        raise UnusableImage(Unusable.MASK_GRID)
    return index


def _item(dataset: Any, group: Any, keyword: str) -> Any:  # noqa: ANN401
    """Return a functional group of a frame: its own, or the one that all frames share."""
    sequence = group.get(keyword, None) or dataset.SharedFunctionalGroupsSequence[0].get(keyword, None)
    if not sequence:
        raise UnusableImage(Unusable.MASK_GRID)
    return sequence[0]


def _numbers(value: Any, count: int) -> NDArray[np.float64]:  # noqa: ANN401
    numbers = np.array([float(each) for each in value])
    if numbers.shape != (count,) or not np.isfinite(numbers).all() or np.abs(numbers).max() > 1e5:
        raise UnusableImage(Unusable.MASK_GRID)
    return numbers
