"""Sets of patients as bytes, and back: sorted numbers by their steps, cells and values in the same order, compressed."""

import struct
import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.documents import digest_of
from policies.errors import StateError
from station.egress.differencing.comparing import Told

_HEAD: Final = struct.Struct("<III")
_MOST_BYTES: Final = 1 << 30


def pack_patients(told: Told) -> tuple[str, bytes]:
    """Return the digest of a set of patients and its bytes."""
    steps = np.diff(told.patients, prepend=0).astype("<i8").tobytes()
    return digest_of(steps), zlib.compress(steps, 6)


def pack_content(told: Told) -> tuple[str, bytes]:
    """Return the digest of how a set of patients lies in cells, and its bytes."""
    valued = told.values is not None
    data = _HEAD.pack(len(told.patients), len(told.parts), valued)
    data += b"".join(part.astype("<i4").tobytes() for part in told.parts)
    if told.values is not None:
        data += (told.values + 0.0).astype("<f8").tobytes()
    return digest_of(data), zlib.compress(data, 6)


def unpack_patients(data: bytes) -> NDArray[np.int64]:
    """Return the numbers of a stored set of patients."""
    return np.cumsum(np.frombuffer(_inflated(data), "<i8")).astype(np.int64)


def unpack(row: tuple[str, str, int], patients: bytes, content: bytes) -> Told:
    """Return what a row and its two sets say.

    Args:
        row: what, measure and minimum.
        patients: as `pack_patients` made it.
        content: as `pack_content` made it.

    Raises:
        StateError: they are not what was stored.
    """
    what, measure, minimum = row
    try:
        numbers = unpack_patients(patients)
        data = _inflated(content)
        length, parts, valued = _HEAD.unpack_from(data)
        if length != len(numbers) or len(data) != _HEAD.size + length * (4 * parts + 8 * valued):
            raise StateError("differences: a stored set is damaged")
        at = _HEAD.size
        cells = []
        for _ in range(parts):
            cells.append(np.frombuffer(data, "<i4", length, at).astype(np.int32))
            at += 4 * length
        values = np.frombuffer(data, "<f8", length, at).astype(np.float64) if valued else None
    except (zlib.error, struct.error, ValueError) as error:
        raise StateError("differences: a stored set cannot be read") from error
    match measure:
        case "count" | "sum" | "quantiles" | "metric":
            return Told(what, measure, minimum, numbers, tuple(cells), values)
    raise StateError("differences: a stored table is of no known measure")


def _inflated(data: bytes) -> bytes:
    reader = zlib.decompressobj()
    out = reader.decompress(data, _MOST_BYTES)
    if not reader.eof:
        raise StateError("differences: a stored set is larger than any of ours")
    return out
