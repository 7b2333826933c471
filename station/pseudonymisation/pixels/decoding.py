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
from pydicom.encaps import get_frame
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
from station.pseudonymisation.pixels.codestreams import CodestreamSize, codestream_size

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
_WITH_CODESTREAM = frozenset({"pylibjpeg", "pyjpegls", "gdcm"})
LOSSY = frozenset({JPEG2000, JPEGLSNearLossless, JPEGBaseline8Bit, JPEGExtended12Bit})
"""Syntaxes in which a frame may not be what was acquired; JPEG2000 may be either."""
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
        high = int(ds.get("HighBit", layout.bits_stored - 1))
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
        or high != layout.bits_stored - 1
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


def refuse_spare_bits(ds: Dataset) -> None:
    """Look only at the bits above the stored ones, which is cheap where pixels are plain.

    Raises:
        PseudonymisationError: something stands there, or the pixels cannot be decoded.
    """
    layout = layout_of(ds)
    if _DECODERS[layout.transfer_syntax] in _WITH_CODESTREAM:
        for index in range(layout.frames):
            header = _header(ds, layout, index)
            if header is None or header.bits > layout.bits_stored:
                _frame(ds, layout, index)
    elif layout.transfer_syntax in {ImplicitVRLittleEndian, ExplicitVRLittleEndian}:
        size = layout.rows * layout.columns * layout.frames
        kind = np.dtype(f"<{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}")
        data = ds.PixelData
        if not isinstance(data, bytes) or len(data) < size * kind.itemsize:
            raise PseudonymisationError(PseudonymisationFault.PIXELS_UNDECODABLE)
        _stored_values(np.frombuffer(data, dtype=kind, count=size), layout)
    else:
        for _ in frames_of(ds, layout):
            pass


def _frame(ds: Dataset, layout: Layout, index: int) -> Frame:
    plugin = _DECODERS[layout.transfer_syntax]
    try:
        if plugin in _WITH_CODESTREAM and not _agrees(_header(ds, layout, index), layout):
            raise PseudonymisationError(PseudonymisationFault.PIXELS_UNDECODABLE)
        decoder = get_decoder(layout.transfer_syntax)
        buffer, found = decoder.as_buffer(ds, index=index, raw=True, decoding_plugin=plugin)
        # A codec may answer in a smaller container: eight bits of a frame that has sixteen.
        bits = int(found.get("bits_allocated", layout.bits_allocated))
        kind = np.dtype(f"{'i' if layout.signed else 'u'}{bits // 8}")
        if layout.transfer_syntax == ExplicitVRBigEndian:
            kind = kind.newbyteorder(">")
        size = layout.rows * layout.columns
        if bits > layout.bits_allocated or len(buffer) < size * kind.itemsize:
            raise PseudonymisationError(PseudonymisationFault.PIXELS_UNDECODABLE)
        values = np.frombuffer(buffer, dtype=kind, count=size).reshape(layout.rows, layout.columns)
    except _FILE_ERRORS:
        raise PseudonymisationError(PseudonymisationFault.PIXELS_UNDECODABLE) from None
    return _stored_values(values.astype(f"{kind.kind}{layout.bits_allocated // 8}"), layout)


def _header(ds: Dataset, layout: Layout, index: int) -> CodestreamSize | None:
    tables = None
    if "ExtendedOffsetTable" in ds and "ExtendedOffsetTableLengths" in ds:
        tables = ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths
    data = get_frame(ds.PixelData, index, extended_offsets=tables, number_of_frames=layout.frames)
    return codestream_size(data)


def _agrees(size: CodestreamSize | None, layout: Layout) -> bool:
    return (
        size is not None
        and (size.rows, size.columns, size.components) == (layout.rows, layout.columns, 1)
        and size.bits <= layout.bits_allocated
    )


def _stored_values(values: NDArray[Any], layout: Layout) -> Frame:
    """Return stored values; what stands in the bits above the high one must be nothing (PS3.5 8.1.1).

    Old systems kept overlays there, and a text in them is in the file whatever the pixels show.

    Raises:
        PseudonymisationError: there is something, and nobody has looked at it.
    """
    if has_spare_bits(values, layout):
        raise PseudonymisationError(PseudonymisationFault.PIXELS_IN_SPARE_BITS)
    unused = layout.bits_allocated - layout.bits_stored
    stored: Frame = values
    if unused and layout.signed:
        # Whether the sign was written out above the high bit or not, the value is the same.
        stored = np.right_shift(np.left_shift(values, unused), unused)
    return stored


def has_spare_bits(values: NDArray[Any], layout: Layout) -> bool:
    """Tell whether bits above the stored ones hold anything but the values' own sign."""
    if layout.bits_allocated == layout.bits_stored or not values.size:
        return False
    whole = int(np.bitwise_or.reduce(values, axis=None)) & ((1 << layout.bits_allocated) - 1)
    if not whole >> layout.bits_stored:
        return False
    limit = 1 << (layout.bits_stored - 1)
    return not layout.signed or int(values.min()) < -limit or int(values.max()) >= limit
