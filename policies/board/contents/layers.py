"""One layer of an image: what it adds and what it hides, with the digest of each file. Reads it once; stores nothing on disk.

Whiteouts as the OCI image specification has them ("Layer Filesystem Changeset"): ``.wh.NAME`` hides NAME of the layers below,
``.wh..wh..opq`` hides all that the layers below have in its folder.
"""

import hashlib
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from policies.board.contents.tar_stream import Kind, TarEntry, TarStream
from policies.errors import DocumentError, TrustError
from policies.layers import LayerReader, LayerRefusedError

MAX_ENTRIES: Final = 400_000
MAX_NAMES_BYTES: Final = 64 << 20
MAX_KEPT_BYTES: Final = 96 << 20

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_HEAD_BYTES: Final = 132


@dataclass(frozen=True, slots=True)
class LayerFile:
    """One entry of a layer.

    Attributes:
        digest: SHA-256 of its bytes; empty for what is no file.
        head: its first bytes, which tell a program or a picture by its signature.
        data: its bytes, where they were asked for.
    """

    kind: Kind
    size: int
    mode: int
    link: str
    capabilities: bool
    digest: bytes = b""
    head: bytes = b""
    data: bytes | None = None


@dataclass(slots=True)
class Layer:
    """What one layer does.

    Attributes:
        entries: in the order in which they stand; of a name that stands twice the engine keeps the last.
        hidden: paths that it hides.
        opaque: folders of which it hides all that was there before.
        oddities: what image builders do not write.
    """

    digest: str
    size: int
    entries: list[tuple[str, LayerFile]] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)
    oddities: list[str] = field(default_factory=list)


Keep = Callable[[str, int], bool]
"""Says of a path and a size whether the file's bytes are wanted."""


class Ceilings:
    """What is left to read of one image, all its layers together."""

    def __init__(self) -> None:
        self.entries = MAX_ENTRIES
        self.names = MAX_NAMES_BYTES
        self.kept = MAX_KEPT_BYTES
        self.not_kept = 0

    def take(self, entry: TarEntry) -> None:
        """Count an entry.

        Raises:
            DocumentError: that is more than is read of one image.
        """
        self.entries -= 1
        self.names -= len(entry.name) + len(entry.link)
        if self.entries < 0 or self.names < 0:
            raise DocumentError(f"the image holds more than {MAX_ENTRIES} files, or names too long to list")

    def keeps(self, size: int) -> bool:
        """Whether so many more bytes may be kept; counts them."""
        if size > self.kept:
            self.not_kept += 1
            return False
        self.kept -= size
        return True


def read_layer(file: BinaryIO, digest: str, size: int, keep: Keep, ceilings: Ceilings) -> Layer:
    """Read one layer.

    Args:
        file: its bytes, untrusted.
        digest: what they must hash to: what is described is what the image names, or nothing.
        size: as the bundle's index says it.
        keep: which files' bytes to hold on to.
        ceilings: counts over all layers.

    Raises:
        DocumentError: it is no tar archive as image builders write it, or beyond the ceilings.
        TrustError: these are other bytes.
    """
    layer = Layer(digest, size)
    refusals = _Refusals(file)
    stream = TarStream(refusals)
    for entry in stream.entries():
        ceilings.take(entry)
        folder, name = posixpath.split(entry.name)
        if name.startswith(_WHITEOUT):
            _hide(layer, folder, name)
        elif entry.name:
            wanted = entry.kind is Kind.FILE and keep(entry.name, entry.size) and ceilings.keeps(entry.size)
            layer.entries.append((entry.name, _file(entry, stream, wanted=wanted)))
    if stream.digest != digest:
        raise TrustError(
            f"the layer {digest} holds other bytes", hint="Fetch the bundle again from whoever sent it."
        )
    if refused := refusals.finish():
        layer.oddities.append(f"every station refuses this layer, so the train runs nowhere ({refused})")
    if stream.trailing:
        layer.oddities.append("holds bytes behind the archive's end, which no engine unpacks")
    if layer.hidden & {path for path, _ in layer.entries}:
        layer.oddities.append("adds and hides the same path: engines may differ in what is there")
    return layer


class _Refusals:
    """Passes a layer's bytes on, and reads them as a station will."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._reader = LayerReader()
        self._refused = ""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""
        data = self._file.read(size)
        if not self._refused:
            try:
                self._reader.feed(data)
            except LayerRefusedError as error:
                self._refused = error.message
        return data

    def finish(self) -> str:
        """Return why stations refuse the layer; empty where they take it."""
        try:
            if not self._refused:
                self._reader.finish()
        except LayerRefusedError as error:
            self._refused = error.message
        return self._refused


def _hide(layer: Layer, folder: str, name: str) -> None:
    if name == _OPAQUE:
        layer.opaque.add(folder)
        return
    hidden = name.removeprefix(_WHITEOUT)
    if not hidden or hidden in {".", ".."} or hidden.startswith(_WHITEOUT):
        layer.oddities.append("holds a marker that no engine of today obeys")
        return
    layer.hidden.add(posixpath.join(folder, hidden))


def _file(entry: TarEntry, stream: TarStream, *, wanted: bool) -> LayerFile:
    if entry.kind is not Kind.FILE:
        return LayerFile(entry.kind, 0, entry.mode, entry.link, entry.capabilities)
    digest, head, kept = hashlib.sha256(), b"", []
    for chunk in stream.content():
        digest.update(chunk)
        head = head or chunk[:_HEAD_BYTES]
        if wanted:
            kept.append(chunk)
    data = b"".join(kept) if wanted else None
    return LayerFile(entry.kind, entry.size, entry.mode, "", entry.capabilities, digest.digest(), head, data)
