"""The attributes that tell what was done (PS3.15 E.1.1 step 6 and E.3.6; codes of PS3.16 CID 7050)."""

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from station.pseudonymisation.keys import SHIFT_DAYS_MAX, SHIFT_MINUTES_MAX, PseudonymKey
from station.pseudonymisation.table import load_table

IMPLEMENTATION_CLASS_UID = "2.25.172271352148312817217374155372951862101"
IMPLEMENTATION_VERSION = "PHT_RADIOLOGY_1"
_CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
)
_SCHEME = "DCM"
# Of CID 7050, what an earlier de-identification may have stated and what stays true after ours: that something was
# removed or cleaned. That something was retained (113106 and on) is ours to state.
_EARLIER = {
    "113101": "Clean Pixel Data Option",
    "113102": "Clean Recognizable Visual Features Option",
    "113103": "Clean Graphics Option",
    "113104": "Clean Structured Content Option",
    "113105": "Clean Descriptors Option",
}


def method_text(key: PseudonymKey) -> list[str]:
    """Return the values of De-identification Method: profile and edition, shift, key (by its id, never itself)."""
    return [
        f"PS3.15 {load_table().source.edition} Basic Profile, Modified Dates",
        f"Dates moved back 1-{SHIFT_DAYS_MAX} d and 1-{SHIFT_MINUTES_MAX} min per patient",
        f"Key {key.key_id} v{key.version}",
    ]


def write(result: Dataset, source: Dataset, method: list[str]) -> None:
    """Write the de-identification attributes; codes that stand already are kept before ours.

    An earlier De-identification Method is free text, and is replaced.
    """
    result.PatientIdentityRemoved = "YES"
    result.DeidentificationMethod = method
    result.LongitudinalTemporalInformationModified = "MODIFIED"
    stated = [(code, _EARLIER[code]) for code in _stated(source)]
    result.DeidentificationMethodCodeSequence = Sequence([_code(*code) for code in (*stated, *_CODES)])


def _stated(source: Dataset) -> list[str]:
    sequence = source.get("DeidentificationMethodCodeSequence")
    if not isinstance(sequence, Sequence):
        return []
    found = [
        str(item.get("CodeValue") or "").strip()
        for item in sequence
        if str(item.get("CodingSchemeDesignator") or "").strip() == _SCHEME
    ]
    return [code for code in dict.fromkeys(found) if code in _EARLIER]


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = _SCHEME
    item.CodeMeaning = meaning
    return item
