"""From the bytes of one CT slice to its header and its Hounsfield units (PS3.3 C.8.2.1, C.11.1.1.2).

This code meets hostile files: it runs in `station.cohorts.decoder_process` only. Whether slices make a volume is judged
elsewhere, from the headers of all of them (`station.cohorts.series`).
"""

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
import pydicom
from numpy.typing import NDArray

from station.cohorts.reading import (
    DECODERS,
    FILE_ERRORS,
    check_shape,
    found,
    inflated,
    padding,
    parse,
    stored_values,
)
from station.cohorts.series import RESCALE_LIMIT, SliceHeader
from station.cohorts.unusable import Unusable, UnusableImage

MINIMUM_HU: Final = -1024
MAXIMUM_HU: Final = 32_767
PADDING_HU: Final = MINIMUM_HU
"""What stands outside the reconstructed circle, whatever the file puts there."""

HEADER_PREFIX_BYTES: Final = 256 << 10
"""How much of a file is read to see its header; where its pixels begin later, all of it is."""

_PIXEL_GROUP: Final = 0x7FE0


@dataclass(frozen=True, slots=True)
class CtSlice:
    """One slice.

    Attributes:
        header: what the file's header says.
        hounsfield: (rows, columns), clipped to `MINIMUM_HU` .. `MAXIMUM_HU`.
    """

    header: SliceHeader
    hounsfield: NDArray[np.int16]


def read_header(data: bytes, *, whole: bool) -> SliceHeader | None:
    """Read the header of one file.

    Args:
        data: the file, or its beginning.
        whole: whether `data` is all of it.

    Returns:
        The header; None where `data` is a beginning that ends before the pixels do begin.

    Raises:
        UnusableImage: the bytes are no DICOM file in a transfer syntax that is decoded.
    """
    if not whole and _is_deflated(data):
        return None
    try:
        with found(Unusable.NOT_DICOM):
            stream = BytesIO(inflated(data) if whole else data)
            dataset = pydicom.dcmread(stream, stop_before_pixels=True)
            reached = whole or _stands_at_pixels(stream)
            syntax = str(dataset.file_meta.TransferSyntaxUID)
    except UnusableImage:
        if whole:
            raise
        return None
    if not reached:
        return None
    if syntax not in DECODERS:
        raise UnusableImage(Unusable.TRANSFER_SYNTAX)
    return describe(dataset)


def read_slice(data: bytes) -> CtSlice:
    """Decode one slice.

    1. The file is DICOM in a transfer syntax of `DECODERS`, one grey frame of bounded size.
    2. Stored values times slope plus intercept, rounded; both must be there.
    3. Padding (PS3.3 C.7.5.1.1.2) becomes `PADDING_HU`; the rest is clipped.

    Raises:
        UnusableImage: naming what it is not.
    """
    dataset = parse(data)
    header = describe(dataset)
    check_shape(dataset)
    if header.slope is None or header.intercept is None:
        raise UnusableImage(Unusable.MISSING_RESCALE)
    if max(abs(header.slope), abs(header.intercept)) > RESCALE_LIMIT:
        raise UnusableImage(Unusable.PIXEL_ATTRIBUTES)
    stored = stored_values(dataset)
    if header.slope == 1.0 and header.intercept == int(header.intercept):
        values: NDArray[np.int32 | np.float64] = stored + np.int32(header.intercept)
    else:
        values = np.rint(stored * header.slope + header.intercept)
    hounsfield = np.clip(values, MINIMUM_HU, MAXIMUM_HU).astype(np.int16)
    with found(Unusable.PIXEL_ATTRIBUTES):
        hidden = padding(stored, dataset)
    if hidden is not None:
        hounsfield[hidden] = PADDING_HU
    return CtSlice(header, hounsfield)


def describe(dataset: Any) -> SliceHeader:  # noqa: ANN401 - pydicom is not typed here
    """Return what a dataset says of itself; what cannot be read is None or empty, and is judged with the series."""
    kind = _words(dataset, "ImageType")
    return SliceHeader(
        sop_class_uid=_word(dataset, "SOPClassUID"),
        modality=_word(dataset, "Modality"),
        image_type=kind[:16],
        rows=_whole(dataset, "Rows", 0, 65_535),
        columns=_whole(dataset, "Columns", 0, 65_535),
        frames=_whole(dataset, "NumberOfFrames", 1, 1 << 31),
        position=_numbers(dataset, "ImagePositionPatient", 3),
        orientation=_numbers(dataset, "ImageOrientationPatient", 6),
        pixel_spacing_mm=_numbers(dataset, "PixelSpacing", 2),
        slope=_number(dataset, "RescaleSlope"),
        intercept=_number(dataset, "RescaleIntercept"),
        rescale_type=_word(dataset, "RescaleType"),
        frame_of_reference=_word(dataset, "FrameOfReferenceUID"),
    )


def _is_deflated(data: bytes) -> bool:
    return b"1.2.840.10008.1.2.1.99" in data[:4096]


def _stands_at_pixels(stream: BytesIO) -> bool:
    tag = stream.read(4)
    return (len(tag) == 4 and struct.unpack("<H", tag[:2])[0] == _PIXEL_GROUP) or tag[:2] == b"\x7f\xe0"


def _words(dataset: Any, keyword: str) -> tuple[str, ...]:  # noqa: ANN401
    try:
        value = dataset.get(keyword, None)
        values = [value] if isinstance(value, str) else list(value or ())
        return tuple(str(each)[:64].encode("ascii", "replace").decode() for each in values)
    except FILE_ERRORS:
        return ()


def _word(dataset: Any, keyword: str) -> str:  # noqa: ANN401
    return next(iter(_words(dataset, keyword)), "")


def _whole(dataset: Any, keyword: str, least: int, most: int) -> int:  # noqa: ANN401
    try:
        return min(max(int(dataset.get(keyword, None) or least), least), most)
    except FILE_ERRORS:
        return least


def _numbers(dataset: Any, keyword: str, count: int) -> tuple[float, ...] | None:  # noqa: ANN401
    try:
        values = tuple(float(value) for value in dataset[keyword].value)
    except FILE_ERRORS:
        return None
    return values if len(values) == count and np.isfinite(values).all() else None


def _number(dataset: Any, keyword: str) -> float | None:  # noqa: ANN401
    try:
        value = float(dataset[keyword].value)
    except FILE_ERRORS:
        return None
    return value if np.isfinite(value) else None
