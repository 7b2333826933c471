"""The headers of a tar archive, read so strictly that every program that unpacks it must read the same.

The forms that engines write are taken: POSIX ustar with pax headers, and GNU with its long names. Whatever readers are known to
disagree about (old headers without a magic, star, sparse files, two headers for one entry, records that stand twice) is refused.
Formats: POSIX.1-2017 pax, section "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format".
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from policies.layers.ceilings import LayerFault

BLOCK: Final = 512

_FIELDS: Final = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12s")
_OCTAL: Final = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_WHOLE: Final = re.compile(rb"[0-9]{1,19}")
_TIME: Final = re.compile(rb"-?[0-9]{1,19}(?:\.[0-9]{0,19})?")
_LENGTH: Final = re.compile(rb"([1-9][0-9]{0,7}) ")
_USTAR: Final = b"ustar\x0000"
_GNU: Final = b"ustar  \0"
_LARGEST: Final = (1 << 63) - 1

_TIMES: Final = frozenset({b"mtime", b"atime", b"ctime"})
_NUMBERS: Final = frozenset({b"size", b"uid", b"gid"})
_IGNORED: Final = frozenset(
    {b"uname", b"gname", b"comment", b"LIBARCHIVE.creationtime", b"SCHILY.dev", b"SCHILY.ino", b"SCHILY.nlink",
     b"APK-TOOLS.checksum.SHA1"}
)  # fmt: skip
_XATTRS: Final = (b"SCHILY.xattr.", b"LIBARCHIVE.xattr.")
# Ordinary users may set these on their own files; but engines of users keep their own marks there.
_FREE_XATTR: Final = b"user."
_MARKS: Final = (b"user.overlay.", b"user.containers.", b"user.fuseoverlayfs.", b"user.rootlesscontainers")


class HeaderError(Exception):
    """A header is refused; the reader adds which entry it belongs to."""

    def __init__(self, fault: LayerFault) -> None:
        super().__init__(fault)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Header:
    """One header block.

    Attributes:
        name: with the prefix, as bytes.
        mode: permission and set-id bits.
        size: of the contents that follow.
        kind: the type flag.
        link: the target of a link.
    """

    name: bytes
    mode: int
    size: int
    kind: bytes
    link: bytes


@dataclass(frozen=True, slots=True)
class Extended:
    """What a pax header says about the entry after it."""

    path: bytes | None = None
    link: bytes | None = None
    size: int | None = None


def parse_header(block: bytes) -> Header:
    """Read one block of 512 bytes.

    Raises:
        HeaderError: it is not what engines write.
    """
    (name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _uname, _gname, major, minor, prefix, rest) = (
        _FIELDS.unpack(block)
    )  # fmt: skip
    if sum(block) - sum(checksum) + 8 * 0x20 != _number(checksum):
        raise HeaderError(LayerFault.CHECKSUM)
    if magic == _USTAR:
        if rest.endswith(b"tar\0"):
            raise HeaderError(LayerFault.FORMAT)
        before = _text(prefix)
        whole = before + b"/" + _text(name) if before else _text(name)
    elif magic == _GNU:
        if kind == b"S":
            raise HeaderError(LayerFault.SPARSE)
        # Times, sparse maps and an old writer's prefix share these bytes.
        if prefix.strip(b"\0"):
            raise HeaderError(LayerFault.FORMAT)
        whole = _text(name)
    else:
        raise HeaderError(LayerFault.FORMAT)
    for field in (uid, gid, major, minor):
        _number(field)
    if not mtime[0] & 0x80:
        _number(mtime)
    return Header(whole, _number(mode), _number(size), kind, _text(link))


def parse_extended(body: bytes) -> Extended:
    """Read a pax header's records.

    Raises:
        HeaderError: it is malformed, says something twice, or something that is not taken over.
    """
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(body):
        length = _LENGTH.match(body, at)
        if length is None:
            raise HeaderError(LayerFault.RECORD)
        end = at + int(length[1])
        record = body[length.end() : end]
        key, found, value = record[:-1].partition(b"=")
        if end > len(body) or not record.endswith(b"\n") or not found or not key:
            raise HeaderError(LayerFault.RECORD)
        if key in records:
            raise HeaderError(LayerFault.RECORD_TWICE)
        records[key] = value
        at = end
    for key, value in records.items():
        _check_record(key, value)
    return _extended(records)


def parse_long_name(body: bytes) -> bytes:
    """Read the body of GNU's long name or long link.

    Raises:
        HeaderError: it holds a zero byte inside.
    """
    name = body.rstrip(b"\0")
    if b"\0" in name:
        raise HeaderError(LayerFault.NAME_ZERO)
    return name


def _extended(records: Mapping[bytes, bytes]) -> Extended:
    size = records.get(b"size")
    return Extended(records.get(b"path"), records.get(b"linkpath"), None if size is None else int(size))


def _check_record(key: bytes, value: bytes) -> None:
    if key in {b"path", b"linkpath"}:
        if not value:
            raise HeaderError(LayerFault.NAME_EMPTY)
        if b"\0" in value:
            raise HeaderError(LayerFault.NAME_ZERO)
    elif key in _NUMBERS:
        if not _WHOLE.fullmatch(value) or int(value) > _LARGEST:
            raise HeaderError(LayerFault.NUMBER)
    elif key in _TIMES:
        if not _TIME.fullmatch(value):
            raise HeaderError(LayerFault.NUMBER)
    elif key.startswith(b"GNU.sparse") or key == b"SCHILY.realsize":
        raise HeaderError(LayerFault.SPARSE)
    elif key.startswith(_XATTRS):
        attribute = key.split(b".", 2)[2]
        if not attribute.startswith(_FREE_XATTR) or attribute.startswith(_MARKS) or b"\0" in attribute:
            raise HeaderError(LayerFault.XATTR)
    elif key.startswith((b"SCHILY.acl.", b"RHT.security.")):
        raise HeaderError(LayerFault.XATTR)
    elif key not in _IGNORED:
        raise HeaderError(LayerFault.RECORD_UNKNOWN)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Read a number: octal digits, or GNU's binary form."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
        # The next bit is the sign.
        if field[0] & 0x40 or value > _LARGEST:
            raise HeaderError(LayerFault.NUMBER)
        return value
    octal = _OCTAL.fullmatch(field)
    if octal is None:
        raise HeaderError(LayerFault.NUMBER)
    return int(octal[1] or b"0", 8)
