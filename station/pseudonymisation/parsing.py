"""The data elements of a well-formed file, little endian, straight from its bytes (PS3.5 section 7.1).

pydicom's reader asks the file for every few bytes and makes objects of sequences that may only be removed. This one
cuts a file into `RawDataElement`s, sequences uncut. It is for files that are just as the standard says: of anything else
it says `OddFileError`, and pydicom, which forgives much, reads the file instead. What it does read, it reads as pydicom
does; a test compares the two.
"""

import struct
import zlib
from functools import lru_cache

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag
from pydicom.values import convert_SQ

from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault

Element = DataElement | RawDataElement
UNDEFINED_LENGTH = 0xFFFFFFFF
MAX_INFLATED_BYTES = 1 << 30
_PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_MAX_DEPTH = 40
_LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
     b"ST", b"TM", b"UI", b"UL", b"US"}
)  # fmt: skip
_NAMES = {code: code.decode("ascii") for code in (*_LONG_VRS, *_SHORT_VRS)}
_SHORT = struct.Struct("<HHI").unpack_from
_EXPLICIT = struct.Struct("<HH2sH").unpack_from
_LENGTH = struct.Struct("<I").unpack_from
_HEADER_BYTES, _LONG_HEADER_BYTES = 8, 12


class OddFileError(Exception):
    """The file is not just as the standard says: let pydicom read it."""


@lru_cache(maxsize=16384)
def base_tag(tag: int) -> BaseTag:
    """Return pydicom's object for a tag; the same one each time, which makes looking it up quick."""
    return BaseTag(tag)


def parse_elements(
    data: bytes, start: int, *, implicit: bool, stop_group: int | None = None
) -> tuple[dict[int, RawDataElement], int]:
    """Cut data into elements.

    Args:
        data: a whole file, or the value of an item.
        start: where its elements begin.
        implicit: whether they come without their VR.
        stop_group: the group to read, of file meta information; the first element of another ends it.

    Returns:
        the elements by tag, and where they end.

    Raises:
        PseudonymisationError: `unreadable`, an element ends after the data does.
        OddFileError: something is not just as the standard says.
    """
    found: dict[int, RawDataElement] = {}
    at, end = start, len(data)
    while at < end:
        if at + _HEADER_BYTES > end:
            raise OddFileError
        if stop_group is not None and _SHORT(data, at)[0] != stop_group:
            break
        tag, vr, length, value_at = _header(data, at, end, implicit=implicit)
        if length == UNDEFINED_LENGTH:
            vr, length, value_end, at = _undefined(data, tag, vr, value_at, end, implicit=implicit)
        else:
            at = value_end = value_at + length
            if value_end > end:
                raise PseudonymisationError(PseudonymisationFault.UNREADABLE)
        found[tag] = RawDataElement(
            base_tag(tag), vr, length, data[value_at:value_end] or None, value_at, implicit, True
        )
    return found, at


def parse_items(element: RawDataElement) -> list[dict[int, Element]]:
    """Cut the value of a sequence into the elements of its items, by tag.

    Raises:
        PseudonymisationError: `unreadable`, an item ends after the sequence does.
    """
    value = element.value
    if not value:
        return []
    # A sequence in a VR of UN is implicit VR little endian (PS3.5 6.2.2 note 2).
    unknown = element.VR == "UN"
    implicit = unknown or element.is_implicit_VR
    if unknown or element.is_little_endian:
        try:
            return _items(value, implicit=implicit)
        except OddFileError:
            pass
    items = convert_SQ(value, implicit, unknown or element.is_little_endian)
    return [{int(tag): item_element for tag, item_element in item.items()} for item in items]


def inflate(data: bytes) -> bytes:
    """Inflate a deflated data set (PS3.5 A.5), up to a ceiling.

    Raises:
        PseudonymisationError: `unreadable`, it is larger than that, or damaged.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(data, MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail or not inflater.eof:
        raise PseudonymisationError(PseudonymisationFault.UNREADABLE)
    return inflated


def _header(data: bytes, at: int, end: int, *, implicit: bool) -> tuple[int, str | None, int, int]:
    """Return tag, VR, length, and where the value begins."""
    if implicit:
        group, number, length = _SHORT(data, at)
        vr, value_at = None, at + _HEADER_BYTES
    else:
        group, number, code, length = _EXPLICIT(data, at)
        value_at = at + _HEADER_BYTES
        vr = _NAMES.get(code)
        if vr is None:
            raise OddFileError
        if code in _LONG_VRS:
            if at + _LONG_HEADER_BYTES > end:
                raise OddFileError
            (length,) = _LENGTH(data, value_at)
            value_at += 4
    if group == 0 or group == 0xFFFE:  # noqa: PLR1714 - commands and delimiters have no place here
        raise OddFileError
    return group << 16 | number, vr, length, value_at


def _undefined(
    data: bytes, tag: int, vr: str | None, at: int, end: int, *, implicit: bool
) -> tuple[str, int, int, int]:
    """Return VR, length, where the value ends, and what comes after its delimiter.

    Of a sequence the length is that of its items, as if it had been defined; of pixels it stays undefined.
    """
    if tag == _PIXEL_DATA:
        if vr not in {"OB", "OW"}:
            raise OddFileError
        value_end = _end_of_items(data, at, end, implicit=None, depth=0)
        return vr, UNDEFINED_LENGTH, value_end, value_end + _HEADER_BYTES
    if vr not in {"SQ", None}:
        raise OddFileError
    value_end = _end_of_items(data, at, end, implicit=implicit, depth=0)
    return "SQ", value_end - at, value_end, value_end + _HEADER_BYTES


def _end_of_items(data: bytes, at: int, end: int, *, implicit: bool | None, depth: int) -> int:
    """Return where the delimiter of a sequence stands; `implicit` None for fragments of pixels, which hold nothing."""
    if depth > _MAX_DEPTH:
        raise PseudonymisationError(PseudonymisationFault.NESTED_TOO_DEEP)
    while True:
        if at + _HEADER_BYTES > end:
            raise OddFileError
        group, number, length = _SHORT(data, at)
        tag = group << 16 | number
        if tag == _SEQUENCE_END:
            return at
        if tag != _ITEM:
            raise OddFileError
        at += _HEADER_BYTES
        if length != UNDEFINED_LENGTH:
            at += length
        elif implicit is None:
            raise OddFileError
        else:
            at = _end_of_item(data, at, end, implicit=implicit, depth=depth) + _HEADER_BYTES


def _end_of_item(data: bytes, at: int, end: int, *, implicit: bool, depth: int) -> int:
    """Return where the delimiter of an item of undefined length stands."""
    while True:
        if at + _HEADER_BYTES > end:
            raise OddFileError
        group, number, _ = _SHORT(data, at)
        if group << 16 | number == _ITEM_END:
            return at
        tag, vr, length, value_at = _header(data, at, end, implicit=implicit)
        if length != UNDEFINED_LENGTH:
            at = value_at + length
        elif tag == _PIXEL_DATA or vr not in {"SQ", None}:
            raise OddFileError
        else:
            at = _end_of_items(data, value_at, end, implicit=implicit, depth=depth + 1) + _HEADER_BYTES


def _items(value: bytes, *, implicit: bool) -> list[dict[int, Element]]:
    items: list[dict[int, Element]] = []
    at, end = 0, len(value)
    while at < end:
        if at + _HEADER_BYTES > end:
            raise OddFileError
        group, number, length = _SHORT(value, at)
        if group << 16 | number != _ITEM:
            raise OddFileError
        at += _HEADER_BYTES
        if length == UNDEFINED_LENGTH:
            item_end = _end_of_item(value, at, end, implicit=implicit, depth=0)
            after = item_end + _HEADER_BYTES
        else:
            item_end = after = at + length
            if item_end > end:
                raise PseudonymisationError(PseudonymisationFault.UNREADABLE)
        elements, _ = parse_elements(value[at:item_end], 0, implicit=implicit)
        items.append(dict(elements))
        at = after
    return items
