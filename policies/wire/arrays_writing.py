"""Writes arrays as flat files, in one canonical form: see `policies.wire.arrays` for the format.

A file written here is byte for byte what the stock library writes for the same tensors, so equal tensors are equal digests.
Memory is bounded by the caller's chunks.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from policies.errors import StateError, StorageError, WireError
from policies.wire.arrays import STORAGE, Array, ArrayLayout, TensorEntry, TensorShape, raw_dtype


@dataclass(frozen=True, slots=True)
class WrittenArrays:
    """A file that was written completely."""

    path: Path
    digest: str
    size: int


def canonical_layout(tensors: Iterable[TensorShape]) -> ArrayLayout:
    """Return the layout in which `ArraysWriter` writes these tensors.

    Raises:
        WireError: a name twice, or one that files may not hold.
    """
    ordered = sorted(tensors, key=lambda tensor: (-STORAGE[tensor.dtype].rank, tensor.name))
    names = {tensor.name for tensor in ordered}
    if len(names) != len(ordered) or "__metadata__" in names:
        raise WireError("arrays: a tensor's name stands twice or is reserved")
    position = 8 + len(_encode_header(ordered))
    entries = []
    for tensor in ordered:
        entries.append(TensorEntry(tensor, position))
        position += tensor.nbytes
    return ArrayLayout(tuple(entries), position)


def is_canonical(path: Path, layout: ArrayLayout) -> bool:
    """Return whether a file that reads as `layout` is the one that `ArraysWriter` writes for its tensors, but for their numbers.

    Whoever writes the same tensors in another order or with other spaces says more than they hold.

    Raises:
        StorageError: it cannot be read.
    """
    ordered = canonical_layout(layout.tensors)
    if ordered != layout:
        return False
    header = _encode_header(ordered.tensors)
    try:
        with path.open("rb") as file:
            return file.read(8 + len(header)) == struct.pack("<Q", len(header)) + header
    except OSError as error:
        raise StorageError(f"arrays: the file cannot be read ({error.strerror})") from error


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


def _encode_header(ordered: Iterable[TensorShape]) -> bytes:
    entries: dict[str, object] = {}
    position = 0
    for tensor in ordered:
        end = position + tensor.nbytes
        entries[tensor.name] = {
            "dtype": STORAGE[tensor.dtype].code,
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
