"""A tar archive read as a stream, under ceilings: names, kinds, modes, links and bytes; nothing is ever extracted.

Reads what image builders write (POSIX.1-1988 ustar, POSIX.1-2001 pax, GNU long names) as Go's `archive/tar` does, which is
what container engines unpack with: an archive that two readers could take differently is refused rather than described.
Python's `tarfile` reads a pax header of any size into memory, so it is not used here.
"""

import hashlib
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from policies.errors import DocumentError

BLOCK_BYTES: Final = 512
MAX_NAME_BYTES: Final = 4096
MAX_DEPTH: Final = 64
MAX_PAX_BYTES: Final = 1 << 20
MAX_FILE_BYTES: Final = 20 << 30

_CHUNK_BYTES: Final = 1 << 20
_ZERO_BLOCK: Final = bytes(BLOCK_BYTES)
_CAPABILITY: Final = b"SCHILY.xattr.security.capability"


class Kind(StrEnum):
    """What an entry is."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    DEVICE = "device"
    FIFO = "fifo"


_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.DEVICE,
    b"4": Kind.DEVICE,
    b"5": Kind.FOLDER,
    b"6": Kind.FIFO,
    b"7": Kind.FILE,
}


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry.

    Attributes:
        name: relative to the archive's root, normal, without a slash at either end; empty for the root itself. Bytes that
            are no UTF-8 stand as surrogates, so that different names stay different.
        size: of the content that follows; 0 for all but files.
        mode: permission bits, with setuid, setgid and sticky.
        link: where a link points, as written; a hard link's is a normal name.
        capabilities: whether Linux capabilities are set on it.
    """

    name: str
    kind: Kind
    size: int
    mode: int
    link: str
    capabilities: bool


class Readable(Protocol):
    """Bytes in their order."""

    def read(self, size: int, /) -> bytes:
        """Return up to so many bytes; none at the end."""
        ...


class TarStream:
    """Reads one archive once, front to back, and hashes all of its bytes.

    Iterate over `entries`; before the next entry, `content` may be read. After the last entry `digest` and `trailing` hold.
    """

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._left = 0
        self._padding = 0
        self.trailing = 0

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of the bytes read so far."""
        return "sha256:" + self._hash.hexdigest()

    def entries(self) -> Iterator[TarEntry]:
        """Yield every entry.

        Raises:
            DocumentError: it is no tar archive, or one beyond the limits.
        """
        pax: dict[bytes, bytes] = {}
        long_name = long_link = None
        while (header := self._header()) is not None:
            flag = header[156:157]
            size = _number(header[124:136])
            if flag in {b"x", b"g"}:
                records = _pax_records(self._small(size))
                if flag == b"g" and records.keys() & {b"path", b"linkpath", b"size"}:
                    raise _wrong("a global header that names files")
                pax = records if flag == b"x" else pax
                continue
            if flag in {b"L", b"K"}:
                text = self._small(size).split(b"\0", 1)[0]
                long_name, long_link = (text, long_link) if flag == b"L" else (long_name, text)
                continue
            entry = _entry(header, size, pax, long_name, long_link)
            self._left, self._padding = entry.size, -entry.size % BLOCK_BYTES
            pax, long_name, long_link = {}, None, None
            yield entry
            for _ in self.content():
                pass
            self._exactly(self._padding)
        if pax or long_name or long_link:
            raise _wrong("cut short")
        self._read_trailing()

    def content(self) -> Iterator[bytes]:
        """Yield what is left of the present entry's bytes."""
        while self._left:
            chunk = self._file.read(min(self._left, _CHUNK_BYTES))
            if not chunk:
                raise _wrong("cut short")
            self._hash.update(chunk)
            self._left -= len(chunk)
            yield chunk

    def _header(self) -> bytes | None:
        block = self._file.read(BLOCK_BYTES)
        self._hash.update(block)
        if not block:
            return None
        if len(block) < BLOCK_BYTES:
            raise _wrong("cut short")
        if block == _ZERO_BLOCK:
            second = self._file.read(BLOCK_BYTES)
            self._hash.update(second)
            if second.strip(b"\0"):
                raise _wrong("an end in the middle")
            return None
        told = _number(block[148:156])
        if told != sum(block) - sum(block[148:156]) + 8 * 32:
            raise _wrong("a header with another checksum")
        return block

    def _small(self, size: int) -> bytes:
        if size > MAX_PAX_BYTES:
            raise _wrong(f"a header of more than {MAX_PAX_BYTES} bytes")
        data = self._exactly(size)
        self._exactly(-size % BLOCK_BYTES)
        return data

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size) if size else b""
        if len(data) < size:
            raise _wrong("cut short")
        self._hash.update(data)
        return data

    def _read_trailing(self) -> None:
        """Read what stands behind the archive's end: padding of zeros, or bytes that no engine would unpack."""
        while chunk := self._file.read(_CHUNK_BYTES):
            self._hash.update(chunk)
            if chunk.count(0) != len(chunk):
                self.trailing += len(chunk)


def _entry(
    header: bytes, size: int, pax: dict[bytes, bytes], long_name: bytes | None, long_link: bytes | None
) -> TarEntry:
    flag = header[156:157]
    kind = _KINDS.get(flag)
    if kind is None or any(key.startswith(b"GNU.sparse") for key in pax):
        raise _wrong("an entry of a kind that image builders do not write")
    if (pax.get(b"path") and long_name) or (pax.get(b"linkpath") and long_link):
        # Which of the two counts, readers disagree on.
        raise _wrong("an entry with two names")
    name = pax.get(b"path") or long_name or _header_name(header)
    link = pax.get(b"linkpath") or long_link or header[157:257].split(b"\0", 1)[0]
    if b"size" in pax:
        size = _decimal(pax[b"size"])
    if flag == b"\0" and name.endswith(b"/"):
        kind = Kind.FOLDER
        if size:
            raise _wrong("a folder with content")
    if kind is not Kind.FILE:
        size = 0
    if size > MAX_FILE_BYTES:
        raise _wrong(f"a file of more than {MAX_FILE_BYTES} bytes")
    if len(link) > MAX_NAME_BYTES or (kind in {Kind.SYMLINK, Kind.HARDLINK} and not link):
        raise _wrong("a link to nowhere, or with a name too long")
    target = _normal(link) if kind is Kind.HARDLINK else link.decode("utf-8", "surrogateescape")
    mode = _number(header[100:108]) & 0o7777
    return TarEntry(_normal(name), kind, size, mode, target, bool(pax.get(_CAPABILITY)))


def _header_name(header: bytes) -> bytes:
    name, area = header[:100].split(b"\0", 1)[0], header[345:500]
    if header[257:263] != b"ustar\0":
        if header[257:262] == b"ustar" and area.strip(b"\0"):
            # The GNU form keeps times there, and some readers take them for a folder where they are none.
            raise _wrong("a header with times in the place of a folder")
        return name
    if header[508:512] == b"tar\0":
        raise _wrong("a header of the form of `star`, which has another place for times")
    prefix = area.split(b"\0", 1)[0]
    return prefix + b"/" + name if prefix else name


def _normal(name: bytes) -> str:
    """Return a name relative to the root, or refuse one that leaves it.

    >>> _normal(b"./opt//train/")
    'opt/train'
    """
    if len(name) > MAX_NAME_BYTES:
        raise _wrong(f"a name of more than {MAX_NAME_BYTES} bytes")
    steps = [step for step in name.split(b"/") if step not in {b"", b"."}]
    if b".." in steps or b"\0" in name:
        raise _wrong("a name that leaves the archive")
    if len(steps) > MAX_DEPTH:
        raise _wrong(f"folders nested more than {MAX_DEPTH} deep")
    return posixpath.join(*(step.decode("utf-8", "surrogateescape") for step in steps)) if steps else ""


def _number(field: bytes) -> int:
    """Read a header's number: octal text, or base 256 where its first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        if field[0] & 0x40:
            raise _wrong("a negative number")
        return value
    text = field.strip(b" \0")
    if not text:
        return 0
    if text.strip(b"01234567"):
        raise _wrong("a number that is none")
    return int(text, 8)


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise _wrong("a number that is none")
    return int(text)


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    r"""Read the records ``<length> <key>=<value>\\n`` of a pax header."""
    found: dict[bytes, bytes] = {}
    place = 0
    while place < len(data):
        space = data.find(b" ", place, place + 21)
        length = _decimal(data[place:space]) if space > 0 else 0
        record = data[space + 1 : place + length]
        key, equals, value = record.partition(b"=")
        if space < 0 or not equals or not record.endswith(b"\n") or place + length > len(data):
            raise _wrong("a header that cannot be read")
        found[key] = value[:-1]
        place += length
    return found


def _wrong(what: str) -> DocumentError:
    return DocumentError(
        f"a layer of the image is not a tar archive as image builders write it: {what}",
        hint="Ask the requester to pack the train again with `pht-train pack`.",
    )
