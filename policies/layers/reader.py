"""Reads a layer's tar as its bytes pass by, and refuses what an engine, which unpacks it as root, should never see.

Whoever handles a layer reads it so: the researcher's `pack`, the board's `review`, the station when it stores the layer, and the
launcher when it hands the layer to the engine. Nothing is unpacked. Memory is bounded by the ceilings, time by the bytes and the
ceilings.

Invariant: whatever the bytes, `feed` and `finish` raise `LayerRefusedError` and nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from policies.documents import StrictModel
from policies.layers.ceilings import CEILINGS, Ceilings, LayerFault, LayerRefusedError
from policies.layers.headers import (
    BLOCK,
    Extended,
    Header,
    HeaderError,
    parse_extended,
    parse_header,
    parse_long_name,
)
from policies.layers.tree import Tree

VERSION: Final = 2
"""Rises when the reader refuses more or less than before: what an earlier one found is then looked at again."""

Count = Annotated[int, Field(ge=0)]

_FILES: Final = frozenset({b"0", b"\0"})
_LONG: Final = {b"L": "long_name", b"K": "long_link"}
_FAULTS: Final = {
    b"3": LayerFault.DEVICE,
    b"4": LayerFault.DEVICE,
    b"6": LayerFault.FIFO,
    b"S": LayerFault.SPARSE,
    b"g": LayerFault.GLOBAL,
}
_SET_ID: Final = 0o6000


class LayerFinding(StrictModel):
    """What a layer that was read through holds.

    Attributes:
        version: of the reader.
        bytes: of the tar.
        entries: all of them.
        files: regular files.
        file_bytes: their contents together.
        links: symbolic and hard ones.
        set_id: files that would change the user or group of who runs them; without effect in a train's container.
    """

    version: int = VERSION
    bytes: Count
    entries: Count
    files: Count
    file_bytes: Count
    links: Count
    set_id: Count


@dataclass(slots=True)
class _Before:
    """What stands before an entry and belongs to it."""

    extended: Extended | None = None
    long_name: bytes | None = None
    long_link: bytes | None = None

    def is_empty(self) -> bool:
        return self.extended is None and self.long_name is None and self.long_link is None


class LayerReader:
    """Takes a layer's uncompressed bytes in pieces of any size."""

    def __init__(self, ceilings: Ceilings = CEILINGS) -> None:
        """Begin a layer."""
        self._ceilings = ceilings
        self._tree = Tree(ceilings)
        self._bytes = 0
        self._skip = 0
        self._part = bytearray()
        self._special: tuple[bytes, int] | None = None
        self._before = _Before()
        self._extended_total = 0
        self._zeros = 0
        self._entries = 0
        self._files = 0
        self._file_bytes = 0
        self._links = 0
        self._set_id = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece.

        Raises:
            LayerRefusedError: the layer is not taken.
        """
        self._bytes += len(data)
        if self._bytes > self._ceilings.bytes:
            raise LayerRefusedError(LayerFault.BYTES)
        at, end = 0, len(data)
        try:
            while at < end:
                if self._skip:
                    taken = min(self._skip, end - at)
                    self._skip -= taken
                    at += taken
                elif self._zeros >= 2:
                    at = _only_zeros(data, at)
                else:
                    at = self._collect(data, at)
        except HeaderError as error:
            raise LayerRefusedError(error.fault, self._entries + 1) from error

    def finish(self) -> LayerFinding:
        """Say what the layer holds.

        Raises:
            LayerRefusedError: it is cut short, or its entries do not fit together.
        """
        if self._skip or self._part or self._special is not None:
            raise LayerRefusedError(LayerFault.CUT_SHORT)
        if not self._before.is_empty():
            raise LayerRefusedError(LayerFault.HEADER_ALONE)
        try:
            self._tree.finish()
        except HeaderError as error:
            raise LayerRefusedError(error.fault) from error
        return LayerFinding(
            bytes=self._bytes,
            entries=self._entries,
            files=self._files,
            file_bytes=self._file_bytes,
            links=self._links,
            set_id=self._set_id,
        )

    def _collect(self, data: bytes, at: int) -> int:
        """Gather a header block, or the body of an extended header; returns where the next piece begins."""
        wanted = BLOCK if self._special is None else _padded(self._special[1])
        taken = data[at : at + wanted - len(self._part)]
        at += len(taken)
        if not self._part and len(taken) == wanted:
            self._take(taken)
            return at
        self._part += taken
        if len(self._part) == wanted:
            whole = bytes(self._part)
            self._part.clear()
            self._take(whole)
        return at

    def _take(self, whole: bytes) -> None:
        if self._special is not None:
            kind, size = self._special
            self._special = None
            self._take_special(kind, whole[:size])
        elif not whole.strip(b"\0"):
            if not self._before.is_empty():
                raise HeaderError(LayerFault.HEADER_ALONE)
            self._zeros += 1
        elif self._zeros:
            raise HeaderError(LayerFault.TRAILING)
        else:
            self._take_header(parse_header(whole))

    def _take_header(self, header: Header) -> None:
        if header.kind == b"x" or header.kind in _LONG:
            self._begin_special(header)
        else:
            self._take_entry(header)

    def _begin_special(self, header: Header) -> None:
        before = self._before
        again = getattr(before, _LONG.get(header.kind, "extended")) is not None
        mixed = header.kind == b"x" and not before.is_empty()
        if again or mixed or (header.kind in _LONG and before.extended is not None):
            raise HeaderError(LayerFault.HEADER_TWICE)
        if header.size > self._ceilings.extended_bytes:
            raise HeaderError(LayerFault.EXTENDED)
        self._extended_total += header.size
        if self._extended_total > self._ceilings.extended_total:
            raise HeaderError(LayerFault.EXTENDED_TOTAL)
        if header.size:
            self._special = header.kind, header.size
        else:
            self._take_special(header.kind, b"")

    def _take_special(self, kind: bytes, body: bytes) -> None:
        if kind == b"x":
            self._before.extended = parse_extended(body)
        elif kind == b"L":
            self._before.long_name = parse_long_name(body)
        else:
            self._before.long_link = parse_long_name(body)

    def _take_entry(self, header: Header) -> None:
        if self._entries >= self._ceilings.entries:
            raise HeaderError(LayerFault.ENTRIES)
        name, link, size = header.name, header.link, header.size
        if not self._before.is_empty():
            before, self._before = self._before, _Before()
            name = _first(before.long_name, name)
            link = _first(before.long_link, link)
            if before.extended is not None:
                name = _first(before.extended.path, name)
                link = _first(before.extended.link, link)
                size = size if before.extended.size is None else before.extended.size
        if size and header.kind not in _FILES and header.kind not in _FAULTS:
            raise HeaderError(LayerFault.SIZE_OF_NO_FILE)
        self._place(header, name, link, size)
        self._entries += 1
        self._skip = _padded(size)

    def _place(self, header: Header, name: bytes, link: bytes, size: int) -> None:
        if header.kind in _FILES:
            self._tree.add_file(name, size)
            self._files += 1
            self._file_bytes += size
            self._set_id += bool(header.mode & _SET_ID)
        elif header.kind == b"5":
            self._tree.add_folder(name)
        elif header.kind == b"2":
            self._tree.add_symlink(name, link)
            self._links += 1
        elif header.kind == b"1":
            self._tree.add_hard_link(name, link)
            self._links += 1
        else:
            raise HeaderError(_FAULTS.get(header.kind, LayerFault.KIND))


def inspect_layer(chunks: Iterable[bytes], ceilings: Ceilings = CEILINGS) -> LayerFinding:
    """Read a whole layer.

    Raises:
        LayerRefusedError: it is not taken.
    """
    reader = LayerReader(ceilings)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def _only_zeros(data: bytes, at: int) -> int:
    if data.count(0, at) != len(data) - at:
        raise HeaderError(LayerFault.TRAILING)
    return len(data)


def _padded(size: int) -> int:
    return size + -size % BLOCK


def _first(value: bytes | None, otherwise: bytes) -> bytes:
    return otherwise if value is None else value
