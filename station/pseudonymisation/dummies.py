"""Dummy values, where the profile or the IOD asks for a value that says nothing."""

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from station.pseudonymisation.iod import AttributeTypes, Path_

TEXT = "REMOVED"
_BY_VR: dict[str, object] = {
    "AE": TEXT, "LO": TEXT, "LT": TEXT, "PN": TEXT, "SH": TEXT, "ST": TEXT, "UC": TEXT, "UT": TEXT,
    "CS": "UNKNOWN", "UR": "urn:removed", "AS": "000Y", "DA": "19000101", "TM": "000000", "DT": "19000101000000",
    "DS": "0", "IS": "0", "FL": 0.0, "FD": 0.0, "SL": 0, "SS": 0, "SV": 0, "UL": 0, "US": 0, "UV": 0, "AT": 0,
    "OB": b"\0\0", "OW": b"\0\0", "OF": b"\0" * 4, "OL": b"\0" * 4, "OD": b"\0" * 8, "OV": b"\0" * 8, "UN": b"\0\0",
}  # fmt: skip
# The coding scheme of a code we made; PS3.16 section 8 leaves names with 99 to anyone.
_CODE = {"CodeValue": "REMOVED", "CodingSchemeDesignator": "99PHT", "CodeMeaning": "Removed"}
_MAX_DEPTH = 4


def dummy_value(vr: str) -> object:
    """Return a dummy for a VR that is not a sequence or a UID."""
    return _BY_VR[vr.split(" or ", maxsplit=1)[0]]


def dummy_sequence(types: AttributeTypes, path: Path_) -> Sequence:
    """Return one item with what the IOD requires in it: a removed code, or dummies of its Type 1 attributes."""
    return Sequence([_dummy_item(types, path)])


def _dummy_item(types: AttributeTypes, path: Path_) -> Dataset:
    item = Dataset()
    children = types.children(path)
    if any(keyword == "CodeMeaning" for keyword, _ in children):
        for keyword, value in _CODE.items():
            setattr(item, keyword, value)
        return item
    for keyword, kind in children:
        tag = tag_for_keyword(keyword)
        if kind.type != "1" or tag is None:
            continue
        vr = dictionary_VR(tag)
        if vr == "SQ":
            if len(path) < _MAX_DEPTH:
                item.add(DataElement(tag, vr, dummy_sequence(types, (*path, keyword))))
        elif vr != "UI":
            item.add(DataElement(tag, vr.split(" or ")[0], dummy_value(vr)))
    return item
