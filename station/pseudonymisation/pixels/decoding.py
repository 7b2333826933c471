"""From Pixel Data to arrays of stored values, one frame after the other, under ceilings.

Each transfer syntax names its one decoder, so what is installed beside it makes no difference. Only greyscale: what comes in
colour is a capture of something, and waits for a person.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault

Frame = NDArray[np.uint16] | NDArray[np.int16] | NDArray[np.uint8] | NDArray[np.int8]

MAX_FRAME_PIXELS = 64_000_000
MAX_FRAMES = 2_000
MAX_PIXELS = 512_000_000
"""All frames together; films and slices are far below."""

_DECODERS: dict[str, str] = {
    ImplicitVRLittleEndian: "",
    ExplicitVRLittleEndian: "",
    ExplicitVRBigEndian: "",
    RLELossless: "pydicom",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEGBaseline8Bit: "gdcm",
    JPEGExtended12Bit: "gdcm",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
}
# What pydicom and the codecs raise on bad bytes.
_FILE_ERRORS = (
    ArithmeticError, AttributeError, BytesLengthException, EOFError, LookupError, MemoryError, NotImplementedError, OSError,
    RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    """How the pixels of an instance lie.

    Attributes:
        inverted: MONOCHROME1, where the lowest value is white.
    """

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    inverted: bool
    transfer_syntax: UID


def layout_of(ds: Dataset) -> Layout:
    """Read how the pixels lie.

    Raises:
        PseudonymisationError: colour, sizes beyond the ceilings, or a transfer syntax without a decoder.
    """
    try:
        layout = Layout(
            rows=int(ds.Rows),
            columns=int(ds.Columns),
            frames=int(ds.get("NumberOfFrames") or 1),
            bits_allocated=int(ds.BitsAllocated),
            bits_stored=int(ds.BitsStored),
            signed=int(ds.PixelRepresentation) == 1,
            inverted=str(ds.PhotometricInterpretation).strip() == "MONOCHROME1",
            transfer_syntax=UID(str(ds.file_meta.TransferSyntaxUID)),
        )
        samples, photometric = int(ds.SamplesPerPixel), str(ds.PhotometricInterpretation).strip()
    except _FILE_ERRORS:
        raise PseudonymisationError(PseudonymisationFault.PIXELS_UNDECODABLE) from None
    if samples != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        raise PseudonymisationError(PseudonymisationFault.PIXELS_IN_COLOUR)
    pixels = layout.rows * layout.columns
    if (
        layout.transfer_syntax not in _DECODERS
        or not 0 < pixels <= MAX_FRAME_PIXELS
        or not 0 < layout.frames <= MAX_FRAMES
        or pixels * layout.frames > MAX_PIXELS
        or layout.bits_allocated not in {8, 16}
        or not 0 < layout.bits_stored <= layout.bits_allocated
    ):
        raise PseudonymisationError(PseudonymisationFault.PIXELS_UNDECODABLE)
    return layout


def frames_of(ds: Dataset, layout: Layout) -> Iterator[Frame]:
    """Decode frame after frame as stored values of shape (rows, columns).

    Raises:
        PseudonymisationError: the pixels cannot be decoded, or are fewer than the header says.
    """
    for index in range(layout.frames):
        yield _frame(ds, layout, index)


def _frame(ds: Dataset, layout: Layout, index: int) -> Frame:
    plugin = _DECODERS[layout.transfer_syntax]
    kind = np.dtype(f"{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}")
    try:
        decoder = get_decoder(layout.transfer_syntax)
        buffer, found = decoder.as_buffer(ds, index=index, raw=True, decoding_plugin=plugin)
        if int(found.get("bits_allocated", layout.bits_allocated)) != layout.bits_allocated:
            raise PseudonymisationError(PseudonymisationFault.PIXELS_UNDECODABLE)
        if layout.transfer_syntax == ExplicitVRBigEndian:
            kind = kind.newbyteorder(">")
        size = layout.rows * layout.columns
        if len(buffer) < size * kind.itemsize:
            raise PseudonymisationError(PseudonymisationFault.PIXELS_UNDECODABLE)
        values = np.frombuffer(buffer, dtype=kind, count=size).reshape(layout.rows, layout.columns)
    except _FILE_ERRORS:
        raise PseudonymisationError(PseudonymisationFault.PIXELS_UNDECODABLE) from None
    return _sign_extended(values, layout)


def _sign_extended(values: NDArray[Any], layout: Layout) -> Frame:
    """Return stored values; bits above the high one (old overlays) are taken off, as PS3.5 8.1.1 says."""
    unused = layout.bits_allocated - layout.bits_stored
    native: NDArray[Any] = values.astype(values.dtype.newbyteorder("="), copy=True)
    if unused and not layout.signed:
        native = np.bitwise_and(native, native.dtype.type((1 << layout.bits_stored) - 1))
    elif unused:
        native = np.right_shift(np.left_shift(native, unused), unused)
    return native
