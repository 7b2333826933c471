"""What the header of a compressed frame says of its own size, read before a codec is let near it. Pure.

A codec makes room for what the codestream says, not for what the data set says: 200 bytes of JPEG 2000 may ask for
gigabytes. So the two must agree first. Nothing is decoded here, and nothing but markers is understood.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise

_JPEG_2000 = b"\xff\x4f\xff\x51"
_START_OF_IMAGE = b"\xff\xd8"
# ITU-T T.81 table B.1 (C4, C8 and CC are no frame headers) and T.87 (F7).
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_START_OF_SCAN = 0xDA
_MOST_SEGMENTS = 200


@dataclass(frozen=True, slots=True)
class CodestreamSize:
    """What a codestream unpacks to."""

    rows: int
    columns: int
    components: int
    bits: int


def codestream_size(data: bytes) -> CodestreamSize | None:
    """Return what a JPEG, JPEG-LS or JPEG 2000 codestream says of itself; None where it is none of them, or is cut."""
    try:
        if data[:4] == _JPEG_2000:
            return _jpeg_2000(data)
        if data[:2] == _START_OF_IMAGE:
            return _jpeg(data)
    except (struct.error, IndexError):
        return None
    return None


def _jpeg_2000(data: bytes) -> CodestreamSize | None:
    """Read the SIZ marker segment (ITU-T T.800 A.5.1): one tile grid, components of one depth at full size."""
    right, bottom, left, top = struct.unpack_from(">4I", data, 8)
    components = struct.unpack_from(">H", data, 40)[0]
    depths = [data[42 + 3 * index : 45 + 3 * index] for index in range(min(components, 4))]
    if (
        not depths
        or any(depth[1:] != b"\1\1" for depth in depths)
        or any(a != b for a, b in pairwise(depths))
    ):
        return None
    return CodestreamSize(bottom - top, right - left, components, (depths[0][0] & 0x7F) + 1)


def _jpeg(data: bytes) -> CodestreamSize | None:
    """Walk the marker segments to the frame header (ITU-T T.81 B.2.2)."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        while data[at] == 0xFF and data[at + 1] == 0xFF:
            at += 1
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        at += 2
        if marker in _WITHOUT_LENGTH:
            continue
        length = struct.unpack_from(">H", data, at)[0]
        if marker in _FRAME_HEADERS:
            bits, rows, columns, components = struct.unpack_from(">BHHB", data, at + 2)
            return CodestreamSize(rows, columns, components, bits)
        if marker == _START_OF_SCAN or length < 2:
            return None
        at += length
    return None
