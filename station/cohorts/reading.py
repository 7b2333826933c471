"""How a hostile DICOM file is read: bounded, by one named decoder per transfer syntax, with findings for faults.

This code meets hostile files: it runs in `station.cohorts.decoder_process` only. It raises `UnusableImage` with a reason
from a closed list; pydicom's own exceptions quote values and stay in that process.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from station.cohorts.unusable import Unusable, UnusableImage

MAX_PIXELS = 64_000_000
"""Rows x columns: four times the largest detector sold."""

MAX_SIDE = 32_767
"""What NIfTI-1 can say of one side."""

# One decoder per transfer syntax, named: which library meets a file must not depend on what else is installed.
# An empty name is native data. Deflated files are inflated under a ceiling and read as explicit little endian.
DECODERS: dict[str, str] = {
    ImplicitVRLittleEndian: "",
    ExplicitVRLittleEndian: "",
    ExplicitVRBigEndian: "",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    JPEGBaseline8Bit: "gdcm",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    RLELossless: "pydicom",
}

# What pydicom and the codecs raise on bad bytes; anything else ends the process, which costs this image too.
FILE_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

MAX_INFLATED_BYTES = 512 << 20
_META_START = 132
_GROUP_LENGTH = struct.Struct("<HH2sHI")
_SYNTAX_ELEMENT = b"\x02\x00\x10\x00UI"


@contextmanager
def found(reason: Unusable) -> Iterator[None]:
    """Turn what bad bytes raise into a finding."""
    try:
        yield
    except FILE_ERRORS as error:
        raise UnusableImage(reason) from error


def parse(data: bytes) -> Any:  # noqa: ANN401 - pydicom is not typed here
    """Parse a file in a transfer syntax of `DECODERS`.

    Raises:
        UnusableImage: it is none.
    """
    with found(Unusable.NOT_DICOM):
        dataset = pydicom.dcmread(BytesIO(inflated(data)))
        syntax = str(dataset.file_meta.TransferSyntaxUID)
    if syntax not in DECODERS:
        raise UnusableImage(Unusable.TRANSFER_SYNTAX)
    return dataset


def inflated(data: bytes) -> bytes:
    """Return a deflated file (PS3.5 A.5) as explicit little endian, and any other as it is.

    Raises:
        UnusableImage: it inflates to more than `MAX_INFLATED_BYTES`, or its header is not in order.
    """
    if data[128:_META_START] != b"DICM":
        return data
    with found(Unusable.NOT_DICOM):
        group, element, vr, length, meta_length = _GROUP_LENGTH.unpack_from(data, _META_START)
        start = _META_START + _GROUP_LENGTH.size
        meta, body = data[start : start + meta_length], data[start + meta_length :]
        at = meta.find(_SYNTAX_ELEMENT)
        if (group, element, vr, length) != (2, 0, b"UL", 4) or at < 0:
            return data
        (size,) = struct.unpack_from("<H", meta, at + 6)
        syntax = meta[at + 8 : at + 8 + size].rstrip(b"\0 ")
        if syntax != DeflatedExplicitVRLittleEndian.encode():
            return data
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        plain = inflater.decompress(body, MAX_INFLATED_BYTES)
        if not inflater.eof:
            raise UnusableImage(Unusable.TOO_LARGE if inflater.unconsumed_tail else Unusable.NOT_DICOM)
    native = ExplicitVRLittleEndian.encode() + b"\0"
    meta = meta[: at + 6] + struct.pack("<H", len(native)) + native + meta[at + 8 + size :]
    return data[:_META_START] + _GROUP_LENGTH.pack(2, 0, b"UL", 4, len(meta)) + meta + plain


def check_shape(dataset: Any) -> None:  # noqa: ANN401
    """Hold a file to one grey frame of bounded size, before a pixel is decoded.

    Raises:
        UnusableImage: it is something else.
    """
    with found(Unusable.PIXEL_ATTRIBUTES):  # pydicom parses a value when it is asked for
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        samples, frames = int(dataset.SamplesPerPixel), int(dataset.get("NumberOfFrames", None) or 1)
        photometric = str(dataset.PhotometricInterpretation)
        allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
        high, signed = int(dataset.HighBit), int(dataset.PixelRepresentation)
    if samples != 1 or frames != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        raise UnusableImage(Unusable.NOT_A_RADIOGRAPH)
    if (
        rows < 1
        or columns < 1
        or allocated not in {8, 16}
        or not 1 <= stored <= allocated
        or signed not in {0, 1}
    ):
        raise UnusableImage(Unusable.PIXEL_ATTRIBUTES)
    if high != stored - 1:
        raise UnusableImage(Unusable.PIXEL_ATTRIBUTES)
    if rows * columns > MAX_PIXELS or max(rows, columns) > MAX_SIDE:
        raise UnusableImage(Unusable.TOO_LARGE)


def stored_values(dataset: Any) -> NDArray[np.int32]:  # noqa: ANN401
    """Return the stored values of a file that `check_shape` let pass, (rows, columns).

    Raises:
        UnusableImage: the pixel data is not what the header says.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    decoder = get_decoder(syntax)
    with found(Unusable.PIXEL_DATA):
        if DECODERS[syntax]:
            # Not `as_array`: it spreads a codestream of one pixel over the picture. `as_buffer` insists on the size.
            frame, layout = decoder.as_buffer(dataset, index=0, raw=True, decoding_plugin=DECODERS[syntax])
            values = np.frombuffer(frame, dtype=f"<u{int(layout['bits_allocated']) // 8}")
            values = values.reshape(int(dataset.Rows), int(dataset.Columns))
        else:
            values, _ = decoder.as_array(dataset, raw=True)
        # Above BitsStored there may be anything (overlays, a codec's sign); below it is the value, in two's complement.
        bits = min(int(dataset.BitsStored), 8 * values.dtype.itemsize)
        stored: NDArray[np.int32] = values.astype(np.int32) & (2**bits - 1)
        if dataset.PixelRepresentation == 1:
            sign = 2 ** (bits - 1)
            stored = (stored ^ sign) - sign
        return stored


def padding(stored: NDArray[np.int32], dataset: Any) -> NDArray[np.bool_] | None:  # noqa: ANN401
    """Return where stored values are padding (PS3.3 C.7.5.1.1.2); None where the file names none."""
    value = dataset.get("PixelPaddingValue", None)
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit", None)
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return np.asarray((stored >= low) & (stored <= high))
