"""Reads and writes safetensors files through memory maps, a piece of a tensor at a time.

The bytes come from stations: the header is bounded and checked (names, dtypes, shapes, offsets without gap or
overlap) before any of it is used, and nothing is unpickled. bfloat16, which numpy lacks, is widened to float32 and
rounded back to nearest even. Format: safetensors 0.x, "8-byte length, JSON header, data".
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from policies.documents import parse_json
from policies.errors import DocumentError, WireError

MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_TENSORS = 20_000
PIECE_ELEMENTS = 1 << 20
"""Elements that are worked on at once: 4 MiB of float32 per station."""

_LENGTH = struct.Struct("<Q")
_NUMPY_TYPES: Mapping[str, str] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|u1",
}
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
DTYPE_NAMES: Mapping[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""Safetensors' names of types to those of the train manifest."""

Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's place in a file.

    Attributes:
        dtype: safetensors' name, for example ``F32``.
        shape: its lengths.
        start: offset of its first byte in the file.
        size: in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether it takes part in averages; integers and booleans do not."""
        return self.dtype in _FLOATS


class TensorFile:
    """A safetensors file, memory-mapped; only the pieces that are asked for become resident."""

    def __init__(self, path: Path) -> None:
        """Read and check the header.

        Raises:
            WireError: not a safetensors file of bounded, gapless, known tensors.
        """
        self.tensors = _read_header(path)
        self._data: npt.NDArray[np.uint8] | None = None
        if any(tensor.size for tensor in self.tensors.values()):
            self._data = np.memmap(path, dtype=np.uint8, mode="r")

    def pieces(self, name: str) -> Iterator[tuple[int, int]]:
        """Bounds (first, past the last element) of the pieces of a tensor, in order."""
        elements = self.tensors[name].elements
        for first in range(0, elements, PIECE_ELEMENTS):
            yield first, min(first + PIECE_ELEMENTS, elements)

    def read(self, name: str, first: int, last: int) -> Numbers:
        """A piece of a tensor, flat; bfloat16 and float16 come as float32, in which sums keep their digits."""
        raw = self._raw(name, first, last)
        dtype = self.tensors[name].dtype
        if dtype == "BF16":
            return widen(raw)
        return raw.astype(np.float32) if dtype == "F16" else raw

    def is_finite(self, name: str) -> bool:
        """Whether a float tensor holds neither NaN nor infinity, and a boolean one nothing but 0 and 1."""
        dtype = self.tensors[name].dtype
        for first, last in self.pieces(name):
            if dtype in _FLOATS and not np.isfinite(self.read(name, first, last)).all():
                return False
            if dtype == "BOOL" and (self._raw(name, first, last) > 1).any():
                return False
        return True

    def _raw(self, name: str, first: int, last: int) -> Numbers:
        tensor = self.tensors[name]
        dtype = np.dtype(_NUMPY_TYPES[tensor.dtype])
        if self._data is None:
            return np.empty(0, dtype)
        begin = tensor.start + first * dtype.itemsize
        return self._data[begin : begin + (last - first) * dtype.itemsize].view(dtype)


def write_header(file: BinaryIO, tensors: Mapping[str, Tensor]) -> None:
    """Write the header of a file whose tensors follow in this order, one after the other."""
    header: dict[str, object] = {}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    # The data starts at a multiple of 8, as safetensors itself writes it.
    text += b" " * (-len(text) % 8)
    file.write(_LENGTH.pack(len(text)) + text)


def to_bytes(values: Numbers, dtype: str) -> bytes:
    """Numbers in a tensor's own type."""
    if dtype == "BF16":
        return narrow(values).tobytes()
    return values.astype(_NUMPY_TYPES[dtype], copy=False).tobytes()


def widen(raw: Numbers) -> npt.NDArray[np.float32]:
    """bfloat16 bits to float32, exactly."""
    return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)


def narrow(values: Numbers) -> npt.NDArray[np.uint16]:
    """float32 to bfloat16 bits, rounding to nearest even.

    >>> narrow(np.array([1.0, -2.5], dtype=np.float32)).tolist() == [0x3F80, 0xC020]
    True
    """
    bits = values.astype(np.float32, copy=False).view(np.uint32)
    rounding = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + rounding) >> np.uint32(16)).astype(np.uint16)


def _read_header(path: Path) -> dict[str, Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(_LENGTH.size)
        if len(prefix) != _LENGTH.size:
            raise WireError("the arrays are shorter than a header")
        (length,) = _LENGTH.unpack(prefix)
        if length > min(MAX_HEADER_BYTES, size - _LENGTH.size):
            raise WireError("the arrays' header is too long")
        text = file.read(length)
    try:
        header = parse_json(text.rstrip(b" "), what="the arrays' header", max_bytes=MAX_HEADER_BYTES)
    except DocumentError:
        raise WireError("the arrays' header is not acceptable JSON") from None
    if not isinstance(header, dict) or len(header) > MAX_TENSORS + 1:
        raise WireError("the arrays' header is not a mapping of bounded size")
    # Free text that a train could write; no tensor.
    if "__metadata__" in header:
        raise WireError("the arrays carry metadata")
    data_start = _LENGTH.size + length
    tensors = {name: _read_tensor(entry, data_start) for name, entry in header.items()}
    end = data_start
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.size)):
        if tensor.start != end:
            raise WireError("the arrays have a gap or an overlap")
        end += tensor.size
    if end != size:
        raise WireError("the arrays' file is longer or shorter than its header says")
    return tensors


def _read_tensor(entry: object, data_start: int) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise WireError("a tensor's entry has other keys than dtype, shape, data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _NUMPY_TYPES or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise WireError("a tensor's entry has a type, shape or offset that is not known")
    if len(shape) > 16 or offsets[1] < offsets[0]:
        raise WireError("a tensor's entry has too many dimensions or reversed offsets")
    tensor = Tensor(dtype, tuple(shape), data_start + offsets[0], offsets[1] - offsets[0])
    if tensor.elements * np.dtype(_NUMPY_TYPES[dtype]).itemsize != tensor.size:
        raise WireError("a tensor's bytes do not fit its shape")
    return tensor


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 1 << 48 for item in value
    )
