"""Values of data elements as they stand in a file: no value is turned into an object to be looked at."""

import re
from functools import cache
from typing import cast

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from station.pseudonymisation.parsing import Element, base_tag, parse_items

Elements = Dataset | dict[int, Element]
"""A data set, or an item as it was cut out of one: its elements by tag."""

_PRINTABLE = bytes(range(0x20, 0x7F))
_PADDING = b" \0"
_UID = re.compile(r"[0-2](?:\.(?:0|[1-9]\d*))+")
_MAX_UID_CHARACTERS = 64


def element_at(source: Elements, tag: int) -> Element | None:
    """Return an element of a data set or of an item as it stands, not converted."""
    if isinstance(source, dict):
        return source.get(tag)
    # pydicom's stubs know one of the two kinds only.
    return cast("Element | None", source.get_item(base_tag(tag), keep_deferred=True))


@cache
def registered_vr(tag: int) -> str:
    """Return the VR of the data dictionary, ``UN`` for a tag it does not have."""
    return str(dictionary_VR(tag)) if dictionary_has_tag(tag) else "UN"


def vr_of(tag: int, element: Element) -> str:
    """Return the element's VR; the dictionary's where the file names none or says UN."""
    vr = element.VR
    return str(vr) if vr and vr != "UN" else registered_vr(tag)


def ascii_text(element: Element | None) -> str | None:
    """Return a text value as ASCII without its padding; None where it is not text, not ASCII, or has controls."""
    value = raw_text(element)
    if value is None or value.translate(None, _PRINTABLE):
        return None
    return value.decode("ascii")


def raw_text(element: Element | None) -> bytes | None:
    """Return a text value as bytes without its padding; None where it is no text.

    Text that is an object already and is not ASCII comes back as UTF-8.
    """
    if element is None:
        return None
    value = element.value
    if value is None:
        return b""
    if isinstance(element, RawDataElement):
        return value.strip(_PADDING) if isinstance(value, bytes) else b""
    if isinstance(value, bytes | Sequence):
        return None
    if isinstance(value, MultiValue | list | tuple):
        text = "\\".join(str(part) for part in value)
    else:
        text = str(value)
    return text.encode("utf-8", "replace").strip(_PADDING)


def items_of(element: Element) -> list[Elements] | None:
    """Return the items of a sequence, None where it is none; the data set it stands in is not changed."""
    if isinstance(element, RawDataElement):
        return list(parse_items(element))
    value = element.value
    return list(value) if isinstance(value, Sequence) else None


def is_uid(text: str) -> bool:
    """Tell whether a text has the form of a UID (PS3.5 section 9.1)."""
    return len(text) <= _MAX_UID_CHARACTERS and _UID.fullmatch(text) is not None
