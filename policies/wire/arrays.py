"""Arrays as flat files: safetensors read under ceilings, tensor by tensor.

A file is ``u64 little-endian header length | header | data``; the header is one JSON object of
``"name": {"dtype", "shape", "data_offsets"}`` (huggingface/safetensors, README "Format"). What is read here is untrusted: the
header is scanned entry by entry under ceilings, and the data must be covered exactly, without hole or overlap, so a
file has no room for bytes that no tensor owns. `__metadata__` is refused unless empty: it is free text.

Memory is bounded by the caller's chunks: files are mapped, never loaded. Raw storage types are used where numpy lacks one:
bfloat16 is uint16, bool is uint8.

This module does not know which tensors are expected; contracts decide that. Writing is `policies.wire.arrays_writing`.
"""

import json
import math
import mmap
import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from policies.errors import StorageError, WireError
from policies.outputs import MAX_TENSORS, DType

MAX_HEADER_BYTES: Final = 8 << 20
MAX_DIMENSIONS: Final = 8
MAX_FILE_BYTES: Final = 1 << 40
CHUNK_ELEMENTS: Final = 1 << 18

Array = NDArray[np.generic]
FloatPrecision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Storage:
    """How a dtype lies in a file."""

    code: str
    raw: np.dtype[np.generic]
    # Place in the stock library's order of data: higher first, which keeps every tensor aligned to its item size.
    rank: int


STORAGE: Final[dict[str, Storage]] = {
    "bool": Storage("BOOL", np.dtype("u1"), 0),
    "uint8": Storage("U8", np.dtype("u1"), 1),
    "int8": Storage("I8", np.dtype("i1"), 2),
    "int16": Storage("I16", np.dtype("<i2"), 3),
    "float16": Storage("F16", np.dtype("<f2"), 4),
    "bfloat16": Storage("BF16", np.dtype("<u2"), 5),
    "int32": Storage("I32", np.dtype("<i4"), 6),
    "float32": Storage("F32", np.dtype("<f4"), 7),
    "float64": Storage("F64", np.dtype("<f8"), 8),
    "int64": Storage("I64", np.dtype("<i8"), 9),
}
_BY_CODE: Final = {storage.code: cast("DType", name) for name, storage in STORAGE.items()}
FLOAT_DTYPES: Final = frozenset({"float64", "float32", "float16", "bfloat16"})

_WS = rb"[ \t\n\r]*"
_ENTRY: Final = re.compile(
    _WS + rb'"([A-Za-z0-9_.\-]{1,200})"' + _WS + rb":" + _WS + rb"\{([^{}]{0,400})\}" + _WS + rb"([,}])"
)
_EMPTY_HEADER: Final = re.compile(rb"\{" + _WS + rb"\}" + _WS)
_PADDING: Final = re.compile(_WS)
_ENTRY_KEYS: Final = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class ArrayLimits:
    """Ceilings of a reader; a declared length above one refuses before anything is read by it."""

    max_bytes: int = MAX_FILE_BYTES
    max_header_bytes: int = MAX_HEADER_BYTES
    max_tensors: int = MAX_TENSORS


@dataclass(frozen=True, slots=True)
class TensorShape:
    """A tensor by name, dtype (as manifests name them) and shape."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return self.elements * raw_dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file.

    Attributes:
        tensor: name, dtype, shape.
        offset: of its first byte, from the start of the file.
    """

    tensor: TensorShape
    offset: int

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.tensor.name


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """What lies where in one file; entries in file order."""

    entries: tuple[TensorEntry, ...]
    file_bytes: int

    @property
    def tensors(self) -> tuple[TensorShape, ...]:
        """The tensors in file order."""
        return tuple(entry.tensor for entry in self.entries)

    def by_name(self) -> dict[str, TensorEntry]:
        """Return the entries by tensor name."""
        return {entry.name: entry for entry in self.entries}


def raw_dtype(dtype: DType) -> np.dtype[np.generic]:
    """Return the numpy type of a tensor's stored items; bfloat16 is uint16, bool is uint8."""
    return STORAGE[dtype].raw


def released_dtype(dtype: DType, precision: FloatPrecision) -> DType:
    """Return the dtype in which the delta of a tensor leaves a station.

    Floats travel in the narrower of what they are and what the policy's precision says, so that the file has no room
    for more bits than were permitted; integers (counters of buffers) travel as int64, because a difference of unsigned
    numbers may be negative.

    >>> released_dtype("float32", "bfloat16"), released_dtype("float16", "float32"), released_dtype("uint8", "float32")
    ('bfloat16', 'float16', 'int64')
    """
    if dtype not in FLOAT_DTYPES:
        return "int64"
    if precision == "float32":
        return "float32" if dtype == "float64" else dtype
    return precision


def read_layout(path: Path, limits: ArrayLimits = ArrayLimits()) -> ArrayLayout:
    """Read and check the header of an untrusted safetensors file; its data is not looked at.

    1. The file is a plain file within the ceiling, and its header within the file and its ceiling.
    2. The header is strict: known dtypes, plain names, each once, no metadata, at most `max_tensors`.
    3. Each tensor's bytes are what its shape says; together they cover the data exactly.

    Args:
        path: the file; links are not followed.
        limits: the ceilings.

    Raises:
        WireError: naming what is wrong, never quoting the file.
        StorageError: the file cannot be read at all.
    """
    header, file_bytes = _read_header(path, limits)
    found = _scan_header(header, limits.max_tensors)
    start = 8 + len(header)
    entries = []
    position = 0
    for tensor, begin, end in sorted(found, key=lambda item: (item[1], item[2])):
        if begin != position or end - begin != tensor.nbytes:
            raise WireError("arrays: the tensors do not cover the data without hole or overlap")
        entries.append(TensorEntry(tensor, start + begin))
        position = end
    if start + position != file_bytes:
        raise WireError("arrays: the file is longer or shorter than its tensors")
    return ArrayLayout(tuple(entries), file_bytes)


def open_tensor(path: Path, entry: TensorEntry) -> Array:
    """Map one tensor read-only, in its raw storage type (`raw_dtype`) and shape.

    The file must stay whole while it is mapped: hand over only files that nobody else can write.

    Raises:
        StorageError: the file cannot be mapped.
    """
    tensor = entry.tensor
    if tensor.elements == 0:
        empty: Array = np.empty(tensor.shape, raw_dtype(tensor.dtype))
        empty.flags.writeable = False
        return empty
    # As numpy.memmap does, without its cost of resolving the path, which counts for models of many small tensors.
    begin = entry.offset - entry.offset % mmap.ALLOCATIONGRANULARITY
    skipped = entry.offset - begin
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            mapped = mmap.mmap(descriptor, skipped + tensor.nbytes, access=mmap.ACCESS_READ, offset=begin)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise StorageError("arrays: a file that was checked before cannot be mapped any more") from error
    items: Array = np.frombuffer(mapped, raw_dtype(tensor.dtype), tensor.elements, skipped)
    return items.reshape(tensor.shape)


def chunks_of(array: Array, elements: int = CHUNK_ELEMENTS) -> Iterator[Array]:
    """Yield an array's items in order as flat pieces of at most `elements`."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, elements):
        yield flat[start : start + elements]


def _read_header(path: Path, limits: ArrayLimits) -> tuple[bytes, int]:
    # Not blocking, so that a pipe put in the file's place cannot hold us up before it is recognised.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
        try:
            return _header_of(descriptor, limits)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"arrays: the file cannot be read ({error.strerror})") from error


def _header_of(descriptor: int, limits: ArrayLimits) -> tuple[bytes, int]:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise WireError("arrays: not a plain file")
    size = status.st_size
    if size > limits.max_bytes:
        raise WireError(f"arrays: {size} bytes; at most {limits.max_bytes} are read")
    prefix = os.pread(descriptor, 8, 0)
    if len(prefix) != 8:
        raise WireError("arrays: the file is shorter than its header")
    (length,) = struct.unpack("<Q", prefix)
    if length > limits.max_header_bytes or 8 + length > size:
        raise WireError("arrays: the header is longer than the file or than its ceiling")
    header = os.pread(descriptor, length, 8)
    if len(header) != length:
        raise WireError("arrays: the file is shorter than its header")
    return header, size


def _scan_header(header: bytes, max_tensors: int) -> list[tuple[TensorShape, int, int]]:
    if _EMPTY_HEADER.fullmatch(header):
        return []
    if not header.startswith(b"{"):
        raise WireError("arrays: the header is not a JSON object")
    found: dict[str, tuple[TensorShape, int, int]] = {}
    metadata = False
    position, closed = 1, False
    while not closed:
        match = _ENTRY.match(header, position)
        if match is None:
            raise WireError("arrays: the header is not of the one form that is read")
        name = match[1].decode("ascii")
        if name == "__metadata__":
            if match[2].strip(b" \t\n\r") or metadata:
                raise WireError("arrays: the header carries metadata")
            metadata = True
        elif name in found:
            raise WireError("arrays: a tensor's name stands twice")
        elif len(found) == max_tensors:
            raise WireError(f"arrays: more than {max_tensors} tensors")
        else:
            found[name] = _read_entry(name, match[2])
        position, closed = match.end(), match[3] == b"}"
    if not _PADDING.fullmatch(header, position):
        raise WireError("arrays: bytes stand behind the header's object")
    return list(found.values())


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def _read_entry(name: str, body: bytes) -> tuple[TensorShape, int, int]:
    try:
        value = json.loads(b"{" + body + b"}", object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise WireError("arrays: a tensor's entry is not JSON") from None
    if set(value) != _ENTRY_KEYS:
        raise WireError("arrays: a tensor's entry has other keys than dtype, shape and data_offsets")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    dtype = _BY_CODE.get(code) if isinstance(code, str) else None
    if dtype is None:
        raise WireError("arrays: a tensor's dtype is not one that is read")
    if not _whole_numbers(shape, MAX_DIMENSIONS) or not _whole_numbers(offsets, 2) or len(offsets) != 2:
        raise WireError("arrays: a tensor's shape or offsets are not whole numbers")
    if math.prod(max(size, 1) for size in shape) > MAX_FILE_BYTES:
        raise WireError(
            "arrays: a tensor's shape is larger than any file"
        )  # numpy would refuse it later, empty or not
    return TensorShape(name, dtype, tuple(shape)), offsets[0], offsets[1]


def _whole_numbers(value: object, at_most: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= at_most
        and all(type(item) is int and 0 <= item <= MAX_FILE_BYTES for item in value)
    )
