"""Data elements and files as bytes (PS3.5 section 7, PS3.10 section 7), from elements that are bytes already.

pydicom's writer makes an object of every element; an instance that is pseudonymised has most of its elements as they
came, so their headers are all there is to write. What this module does not know how to write, pydicom writes: an
element that is no longer raw, and a data set whose elements are in another encoding than its file is to have.
"""

import struct
from dataclasses import dataclass
from functools import cache
from io import BytesIO

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite, write_data_element
from pydicom.uid import DeflatedExplicitVRLittleEndian

from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault
from station.pseudonymisation.parsing import UNDEFINED_LENGTH, Element, base_tag

_PIXEL_DATA = 0x7FE00010
_MAX_SHORT = 0xFFFF
_LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_ZERO_PADDED = frozenset({"UI", "OB", "UN"})
_PREAMBLE = b"\0" * 128 + b"DICM"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How data elements are laid out: with or without their VR, and in which order of bytes."""

    implicit: bool
    little: bool

    def element(self, tag: int, vr: str, value: bytes) -> RawDataElement:
        """Make an element of a value that is bytes already; it is padded to an even length."""
        if len(value) % 2:
            value += b"\0" if vr in _ZERO_PADDED else b" "
        return RawDataElement(base_tag(tag), vr, len(value), value, 0, self.implicit, self.little)

    def text(self, tag: int, vr: str, text: str) -> RawDataElement:
        """Make an element of ASCII text."""
        return self.element(tag, vr, text.encode("ascii"))

    def sequence(self, tag: int, items: list[bytes]) -> RawDataElement:
        """Make a sequence of items that are encoded already."""
        header = "<HHI" if self.little else ">HHI"
        made = b"".join(
            part for item in items for part in (struct.pack(header, 0xFFFE, 0xE000, len(item)), item)
        )
        return self.element(tag, "SQ", made)

    def encode(self, elements: list[tuple[int, Element]]) -> bytes:
        """Encode elements that stand in the order of their tags."""
        parts: list[bytes] = []
        for tag, element in elements:
            self._append(parts, tag, element)
        return b"".join(parts)

    def _append(self, parts: list[bytes], tag: int, element: Element) -> None:
        if not isinstance(element, RawDataElement) or element.is_little_endian != self.little:
            parts.append(self._by_pydicom(tag, element))
            return
        value = element.value or b""
        length = len(value)
        if element.length == UNDEFINED_LENGTH:
            if tag != _PIXEL_DATA:
                raise PseudonymisationError(PseudonymisationFault.UNREADABLE)
            parts += (self._header(tag, element.VR, UNDEFINED_LENGTH), value, self._delimiter())
        elif length % 2:
            padding = b"\0" if element.VR in _ZERO_PADDED else b" "
            parts += (self._header(tag, element.VR, length + 1), value, padding)
        else:
            parts += (self._header(tag, element.VR, length), value)

    def _header(self, tag: int, vr: str | None, length: int) -> bytes:
        if self.implicit:
            return struct.pack("<HHI" if self.little else ">HHI", tag >> 16, tag & 0xFFFF, length)
        if vr is None or len(vr) != 2:
            vr = _registered_vr(tag)
        code = vr.encode("ascii")
        if vr in _LONG_VRS:
            return struct.pack(
                "<HH2sHI" if self.little else ">HH2sHI", tag >> 16, tag & 0xFFFF, code, 0, length
            )
        if length > _MAX_SHORT:
            raise PseudonymisationError(PseudonymisationFault.UNREADABLE)
        return struct.pack("<HH2sH" if self.little else ">HH2sH", tag >> 16, tag & 0xFFFF, code, length)

    def _delimiter(self) -> bytes:
        return struct.pack("<HHI" if self.little else ">HHI", 0xFFFE, 0xE0DD, 0)

    def _by_pydicom(self, tag: int, element: Element) -> bytes:
        if isinstance(element, RawDataElement):
            # Of another order of bytes: its value has to be read to be turned round.
            holder = Dataset({base_tag(tag): element})
            element = holder[tag]
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = self.little, self.implicit
        write_data_element(buffer, element)
        return buffer.getvalue()


META = Encoding(implicit=False, little=True)
"""File meta information is explicit VR little endian, always (PS3.10 7.1)."""


def encode_file(dataset: Dataset) -> bytes:
    """Return the DICOM file of a data set with its file meta information: zero preamble, group length, the rest."""
    meta = dataset.file_meta
    syntax = meta.TransferSyntaxUID
    encoding = Encoding(syntax.is_implicit_VR, syntax.is_little_endian)
    if dataset.original_encoding != (encoding.implicit, encoding.little) or (
        syntax == DeflatedExplicitVRLittleEndian
    ):
        buffer = BytesIO()
        dcmwrite(buffer, dataset, enforce_file_format=True)
        return buffer.getvalue()
    parts = [_PREAMBLE, _meta_bytes(meta)]
    for tag, element in _in_order(dataset):
        encoding._append(parts, tag, element)  # noqa: SLF001 - pixels are copied once, into the file
    return b"".join(parts)


def _meta_bytes(meta: FileMetaDataset) -> bytes:
    body = META.encode(_in_order(meta))
    return META.encode([(0x00020000, META.element(0x00020000, "UL", struct.pack("<I", len(body))))]) + body


def _in_order(dataset: Dataset) -> list[tuple[int, Element]]:
    # Tags as plain numbers: comparing pydicom's own is many times slower.
    return sorted(((int(tag), element) for tag, element in dataset.items()), key=lambda pair: pair[0])


@cache
def _registered_vr(tag: int) -> str:
    registered = str(dictionary_VR(tag)) if dictionary_has_tag(tag) else "UN"
    return {"OB or OW": "OW", "US or SS": "US", "US or OW": "OW", "US or SS or OW": "OW"}.get(
        registered, registered
    )
