"""Arrays as flat files: safetensors read under ceilings, tensor by tensor, and written in one canonical form.

A file is ``u64 little-endian header length | header | data``; the header is one JSON object of
``"name": {"dtype", "shape", "data_offsets"}`` (huggingface/safetensors, README "Format"). What is read here is untrusted: the
header is scanned entry by entry under ceilings, and the data must be covered exactly, without hole or overlap, so a
file has no room for bytes that no tensor owns. `__metadata__` is refused unless empty: it is free text.

A file written here is byte for byte what the stock library writes for the same tensors, so equal tensors are equal
digests. Memory is bounded by the caller's chunks: files are mapped, never loaded. Raw storage types are used where
numpy lacks one: bfloat16 is uint16, bool is uint8.

This module does not know which tensors are expected; contracts decide that. It is longer than most because reader and
writer of one format are read together.
"""

import hashlib
import json
import math
import mmap
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from policies.errors import StateError, StorageError, WireError
from policies.manifest import MAX_TENSORS, DType

MAX_HEADER_BYTES: Final = 8 << 20
MAX_DIMENSIONS: Final = 8
MAX_FILE_BYTES: Final = 1 << 40
CHUNK_ELEMENTS: Final = 1 << 18

Array = NDArray[np.generic]
FloatPrecision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class _Storage:
    code: str
    raw: np.dtype[np.generic]
    # Place in the stock library's order of data: higher first, which keeps every tensor aligned to its item size.
    rank: int


_STORAGE: Final[dict[str, _Storage]] = {
    "bool": _Storage("BOOL", np.dtype("u1"), 0),
    "uint8": _Storage("U8", np.dtype("u1"), 1),
    "int8": _Storage("I8", np.dtype("i1"), 2),
    "int16": _Storage("I16", np.dtype("<i2"), 3),
    "float16": _Storage("F16", np.dtype("<f2"), 4),
    "bfloat16": _Storage("BF16", np.dtype("<u2"), 5),
    "int32": _Storage("I32", np.dtype("<i4"), 6),
    "float32": _Storage("F32", np.dtype("<f4"), 7),
    "float64": _Storage("F64", np.dtype("<f8"), 8),
    "int64": _Storage("I64", np.dtype("<i8"), 9),
}
_BY_CODE: Final = {storage.code: cast("DType", name) for name, storage in _STORAGE.items()}
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


@dataclass(frozen=True, slots=True)
class WrittenArrays:
    """A file that was written completely."""

    path: Path
    digest: str
    size: int


def raw_dtype(dtype: DType) -> np.dtype[np.generic]:
    """Return the numpy type of a tensor's stored items; bfloat16 is uint16, bool is uint8."""
    return _STORAGE[dtype].raw


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


def canonical_layout(tensors: Iterable[TensorShape]) -> ArrayLayout:
    """Return the layout in which `ArraysWriter` writes these tensors.

    Raises:
        WireError: a name twice, or one that files may not hold.
    """
    ordered = sorted(tensors, key=lambda tensor: (-_STORAGE[tensor.dtype].rank, tensor.name))
    names = {tensor.name for tensor in ordered}
    if len(names) != len(ordered) or "__metadata__" in names:
        raise WireError("arrays: a tensor's name stands twice or is reserved")
    position = 8 + len(_encode_header(ordered))
    entries = []
    for tensor in ordered:
        entries.append(TensorEntry(tensor, position))
        position += tensor.nbytes
    return ArrayLayout(tuple(entries), position)


class ArraysWriter:
    """Writes one canonical file, piece by piece in layout order; use it as a context manager.

    The file appears at `path` when `close` succeeds (temporary file, fsync, rename) and not before.

    Args:
        path: where the file shall stand.
        tensors: what it will hold, in any order.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, path: Path, tensors: Iterable[TensorShape]) -> None:
        self.layout = canonical_layout(tensors)
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._hash = hashlib.sha256()
        self._pending = [(entry.tensor, entry.tensor.elements) for entry in reversed(self.layout.entries)]
        self._closed = False
        header = _encode_header(self.layout.tensors)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.fdopen(os.open(self._temporary, flags, 0o600), "wb", buffering=0)
        except OSError as error:
            raise _storage_fault(error) from error
        try:
            self._emit(memoryview(struct.pack("<Q", len(header)) + header))
        except OSError as error:
            self.discard()
            raise _storage_fault(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if not self._closed:
            self.discard()

    def write(self, name: str, items: Array) -> None:
        """Append the next items of a tensor; tensors come in the order of `layout`, each item once.

        Raises:
            StateError: another tensor is due, the items are of another type, or too many.
            StorageError: the disk is full or failed.
        """
        self._skip_complete()
        if not self._pending:
            if items.size:
                raise StateError("arrays: more items than the layout holds")
            return
        tensor, missing = self._pending[-1]
        if not items.size:
            return
        if tensor.name != name or items.dtype != raw_dtype(tensor.dtype) or items.size > missing:
            raise StateError("arrays: the items written are not those that the layout has next")
        self._pending[-1] = (tensor, missing - items.size)
        try:
            self._emit(np.ascontiguousarray(items).reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise _storage_fault(error) from error

    def close(self) -> WrittenArrays:
        """Put the complete file in its place.

        Raises:
            StateError: items are missing.
            StorageError: the disk is full or failed.
        """
        self._skip_complete()
        if self._pending:
            raise StateError("arrays: items are missing")
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self._path)
        except OSError as error:
            raise _storage_fault(error) from error
        self._closed = True
        return WrittenArrays(self._path, "sha256:" + self._hash.hexdigest(), self.layout.file_bytes)

    def discard(self) -> None:
        """Drop what was written."""
        self._closed = True
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _skip_complete(self) -> None:
        while self._pending and self._pending[-1][1] == 0:
            self._pending.pop()

    def _emit(self, data: memoryview) -> None:
        self._hash.update(data)
        while data:
            data = data[self._file.write(data) :]


def bfloat16_from_float32(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 to bfloat16 bits, to nearest, ties to even; NaN stays NaN, overflow becomes infinity.

    >>> [hex(bits) for bits in bfloat16_from_float32(np.array([1.0, -2.5, 3.4e38], np.float32))]
    ['0x3f80', '0xc020', '0x7f80']
    """
    bits = np.ascontiguousarray(values, dtype="<f4").view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits  # cannot wrap for anything but NaN, which is set below
    rounded >>= np.uint32(16)
    result = rounded.astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():
        result[nan] = 0x7FC0
    return result


def float32_from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bfloat16 bits as float32, exactly."""
    widened = bits.astype(np.uint32)
    widened <<= np.uint32(16)
    return widened.view(np.float32)


def as_float(items: Array, dtype: DType) -> NDArray[np.float32] | NDArray[np.float64]:
    """Return raw items of a float tensor as float32, or as float64 where they are."""
    if dtype == "bfloat16":
        return float32_from_bfloat16(cast("NDArray[np.uint16]", items))
    if dtype == "float64":
        return items.astype(np.float64, copy=False)
    return items.astype(np.float32, copy=False)


def from_float(values: NDArray[np.float32] | NDArray[np.float64], dtype: DType) -> Array:
    """Round floats to the raw items of a float tensor, to nearest, ties to even."""
    if dtype == "bfloat16":
        return bfloat16_from_float32(values.astype(np.float32, copy=False))
    return values.astype(raw_dtype(dtype), copy=False)


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


def _encode_header(ordered: Iterable[TensorShape]) -> bytes:
    entries: dict[str, object] = {}
    position = 0
    for tensor in ordered:
        end = position + tensor.nbytes
        entries[tensor.name] = {
            "dtype": _STORAGE[tensor.dtype].code,
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    encoded = json.dumps(entries, separators=(",", ":"), ensure_ascii=True).encode()
    return encoded + b" " * (-len(encoded) % 8)


def _storage_fault(error: OSError) -> StorageError:
    return StorageError(
        f"arrays: a file cannot be written ({error.strerror})",
        hint="Free disk space or choose another folder.",
    )
