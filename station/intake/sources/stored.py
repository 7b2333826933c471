"""What a received data set is: a look at its first elements, and the file that is made of it.

The data set stays as it came; a file is the preamble, file meta information (PS3.10 section 7.1) and its bytes. What else may be
wrong with it is for the processing to find.
"""

import struct
from dataclasses import dataclass
from io import BytesIO

from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from policies.errors import DataError
from station.intake.sources.sop_classes import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from station.pseudonymisation.reading import FAULTS

_SOP_INSTANCE_UID = 0x0008_0018
_SERIES_INSTANCE_UID = 0x0020_000E
_MOST_UID = 64


class NotUnderstoodError(DataError):
    """The data set cannot be read, or does not say what it is."""


class OtherInstanceError(DataError):
    """The data set is another instance than the message says."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a C-STORE says of its data set.

    Attributes:
        syntax: the transfer syntax of its presentation context.
        data: the data set's bytes.
    """

    sop_class: str
    sop_instance: str
    syntax: UID
    data: bytes

    def check(self) -> None:
        """See that the data set's SOP Class and Instance UID are those of the message.

        Raises:
            NotUnderstoodError: they cannot be read; not chained, for the library's text may quote the data set.
            OtherInstanceError: they are others.
        """
        found = self._read(_SOP_INSTANCE_UID, "SOPClassUID", "SOPInstanceUID")
        if not all(found):
            raise NotUnderstoodError("a received data set does not say what it is")
        if found != (self.sop_class, self.sop_instance) or len(self.sop_instance) > _MOST_UID:
            raise OtherInstanceError("a received data set is another instance than its message says")

    def series(self) -> str:
        """Return the Series Instance UID.

        Raises:
            NotUnderstoodError: there is none that can be read.
        """
        (uid,) = self._read(_SERIES_INSTANCE_UID, "SeriesInstanceUID")
        if not uid:
            raise NotUnderstoodError("a received data set does not say which series it is of")
        return uid

    def file(self) -> bytes:
        """Return the data set as a DICOM file."""
        meta = b"".join(
            (
                b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01",
                _element(0x0002, b"UI", self.sop_class),
                _element(0x0003, b"UI", self.sop_instance),
                _element(0x0010, b"UI", str(self.syntax)),
                _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
                _element(0x0013, b"SH", IMPLEMENTATION_VERSION),
            )
        )
        length = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<L", len(meta))
        return b"".join((bytes(128), b"DICM", length, meta, self.data))

    def _read(self, last: int, *keywords: str) -> tuple[str, ...]:
        def is_past(tag: BaseTag, vr: str | None, length: int) -> bool:  # noqa: ARG001 - pydicom's callback
            return int(tag) > last

        try:
            dataset = read_dataset(
                BytesIO(self.data),
                self.syntax.is_implicit_VR,
                self.syntax.is_little_endian,
                stop_when=is_past,
            )
            return tuple(str(dataset.get(keyword) or "") for keyword in keywords)
        except FAULTS:
            return ("",) * len(keywords)


def _element(element: int, vr: bytes, text: str) -> bytes:
    """Encode a short element of group 0002: explicit VR, little endian, even length."""
    value = text.encode("ascii")
    if len(value) % 2:
        value += b"\x00" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value
