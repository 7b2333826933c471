"""A look at a received data set before it is acknowledged: is it DICOM at all, and the instance the message names?

Reads the first elements and no more; what else may be wrong with it is for the processing to find.
"""

from io import BytesIO

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from policies.errors import DataError
from station.pseudonymisation.reading import FAULTS

_SOP_INSTANCE_UID = 0x0008_0018
_SERIES_INSTANCE_UID = Tag(0x0020, 0x000E)


class NotUnderstoodError(DataError):
    """The data set cannot be read, or does not say what it is."""


class OtherInstanceError(DataError):
    """The data set is another instance than the message says."""


def check_instance(data: bytes, sop_class: str, sop_instance: str) -> None:
    """See that a file's SOP Class and Instance UID are those of the message.

    Raises:
        NotUnderstoodError: they cannot be read; not chained, for the library's text may quote the file.
        OtherInstanceError: they are others.
    """
    try:
        dataset = read_partial(BytesIO(data), stop_when=_is_past)
        found = (str(dataset.get("SOPClassUID") or ""), str(dataset.get("SOPInstanceUID") or ""))
    except FAULTS:
        found = ("", "")
    if not all(found):
        raise NotUnderstoodError("a received data set does not say what it is")
    if found != (sop_class, sop_instance):
        raise OtherInstanceError("a received data set is another instance than its message says")


def series_of(data: bytes) -> str:
    """Return a file's Series Instance UID.

    Raises:
        NotUnderstoodError: it has none that can be read.
    """
    try:
        dataset = read_partial(BytesIO(data), stop_when=_is_past_series, specific_tags=[_SERIES_INSTANCE_UID])
        uid = str(dataset.get("SeriesInstanceUID") or "")
    except FAULTS:
        uid = ""
    if not uid:
        raise NotUnderstoodError("a received data set does not say which series it is of")
    return uid


def _is_past(tag: BaseTag, vr: str | None, length: int) -> bool:  # noqa: ARG001 - pydicom's callback
    return int(tag) > _SOP_INSTANCE_UID


def _is_past_series(tag: BaseTag, vr: str | None, length: int) -> bool:  # noqa: ARG001 - pydicom's callback
    return int(tag) > int(_SERIES_INSTANCE_UID)
