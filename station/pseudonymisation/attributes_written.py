"""The attributes that tell what was done (PS3.15 E.1.1 step 6 and E.3; codes of PS3.16 CID 7050).

What is claimed was done by us to this instance: the profile, the options chosen, and of the pixels what their
inspection found. Nothing is claimed of pixels that nobody looked at.
"""

from functools import lru_cache
from typing import Protocol

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from station.pseudonymisation.encoding import Encoding
from station.pseudonymisation.keys import SHIFT_DAYS_MAX, SHIFT_MINUTES_MAX, PseudonymKey
from station.pseudonymisation.options import (
    CLEAN_FACES,
    CLEAN_PIXELS,
    RECIPE_VERSION,
    DeidentificationOptions,
    MethodCode,
    Option,
)
from station.pseudonymisation.table import load_table
from station.pseudonymisation.values import ascii_text, element_at, items_of, vr_of

IMPLEMENTATION_CLASS_UID = "2.25.172271352148312817217374155372951862101"
IMPLEMENTATION_VERSION = "PHT_RADIOLOGY_1"
NOT_INSPECTED = "not-inspected"
_SCHEME = "DCM"
_IDENTITY_REMOVED, _METHOD, _METHOD_CODES = 0x00120062, 0x00120063, 0x00120064
_BURNED_IN, _RECOGNIZABLE, _DATES_MODIFIED = 0x00280301, 0x00280302, 0x00280303
_CODE_VALUE, _CODING_SCHEME, _CODE_MEANING = 0x00080100, 0x00080102, 0x00080104
# Of CID 7050, what an earlier de-identification may have stated and what stays true after ours: that something was
# removed or cleaned. That something was retained (113106 and on) is ours to state.
_EARLIER = {
    code.value: code
    for code in (
        CLEAN_PIXELS,
        CLEAN_FACES,
        MethodCode("113103", "Clean Graphics Option"),
        MethodCode("113104", "Clean Structured Content Option"),
        MethodCode("113105", "Clean Descriptors Option"),
    )
}


class PixelClaims(Protocol):
    """What the inspection of an instance's pixels claims; `station.pseudonymisation.pixels.PixelFinding` is one.

    Attributes:
        status: "not-inspected" claims nothing of the pixels (113101), whatever the other attributes say.
        claims_clean_pixels: burned-in text was looked for everywhere, and what was found was masked (113101).
        recognizable_face: whether a face could be made out, and so Recognizable Visual Features; None where that
            is not known. 113102 is never claimed: nothing of ours takes a face away.
        dataset: the instance with its pixels as they were left.
    """

    @property
    def status(self) -> str:
        """How far the inspection went."""
        ...

    @property
    def claims_clean_pixels(self) -> bool:
        """Whether 113101 may be claimed."""
        ...

    @property
    def recognizable_face(self) -> bool | None:
        """Whether a face could be made out."""
        ...

    @property
    def dataset(self) -> Dataset:
        """The instance with its pixels as they were left."""
        ...


def method_text(key: PseudonymKey, options: DeidentificationOptions) -> list[str]:
    """Return the values of De-identification Method: profile and edition, recipe, dates, key (by id, never itself)."""
    edition = load_table().source.edition
    shift = f"Dates moved back 1-{SHIFT_DAYS_MAX} d and 1-{SHIFT_MINUTES_MAX} min per patient"
    text = [
        f"PS3.15 {edition} Basic Profile, recipe {RECIPE_VERSION}",
        shift if Option.MODIFIED_DATES in options.chosen else "Dates removed or emptied",
        f"Key {key.key_id} v{key.version}",
    ]
    if options.safe_private:
        text.append(f"Safe private: the standard's and {len(options.safe_private)} of the hospital's")
    return text


class Statement:
    """The attributes that tell what was done, made once for a key and options.

    An earlier De-identification Method is free text, and is replaced. Burned In Annotation and Recognizable Visual
    Features are written where they are known, and are not claimed otherwise (PS3.15 E.3.1, E.3.2).
    """

    def __init__(self, key: PseudonymKey, options: DeidentificationOptions) -> None:
        self._method = "\\".join(method_text(key, options))
        self._dates = "MODIFIED" if Option.MODIFIED_DATES in options.chosen else "REMOVED"
        self._codes = options.codes()

    def elements(
        self, source: Dataset, encoding: Encoding, pixels: PixelClaims | None
    ) -> dict[int, RawDataElement]:
        """Return the elements by tag; codes that stand in the source already come before ours."""
        ours = sorted((*self._codes, *_claimed(pixels)), key=lambda code: code.value)
        stated = [code for code in _stated(source) if code not in ours]
        made = {
            _IDENTITY_REMOVED: encoding.text(_IDENTITY_REMOVED, "CS", "YES"),
            _METHOD: encoding.text(_METHOD, "LO", self._method),
            _METHOD_CODES: _code_sequence(encoding, (*stated, *ours)),
            _DATES_MODIFIED: encoding.text(_DATES_MODIFIED, "CS", self._dates),
        }
        if pixels is None:
            return made
        if CLEAN_PIXELS in ours:
            made[_BURNED_IN] = encoding.text(_BURNED_IN, "CS", "NO")
        if pixels.recognizable_face is not None:
            made[_RECOGNIZABLE] = encoding.text(
                _RECOGNIZABLE, "CS", "YES" if pixels.recognizable_face else "NO"
            )
        return made


def _claimed(pixels: PixelClaims | None) -> list[MethodCode]:
    if pixels is None or pixels.status == NOT_INSPECTED:
        return []
    # 113102 says that features were cleaned away; nothing of ours does that, and a header alone is no proof of it.
    return [CLEAN_PIXELS] if pixels.claims_clean_pixels else []


def _stated(source: Dataset) -> list[MethodCode]:
    element = element_at(source, _METHOD_CODES)
    items = items_of(element) if element is not None and vr_of(_METHOD_CODES, element) == "SQ" else None
    if not items:
        return []
    found = [
        ascii_text(element_at(item, _CODE_VALUE)) or ""
        for item in items
        if ascii_text(element_at(item, _CODING_SCHEME)) == _SCHEME
    ]
    return [_EARLIER[code] for code in dict.fromkeys(found) if code in _EARLIER]


@lru_cache(maxsize=64)
def _code_sequence(encoding: Encoding, codes: tuple[MethodCode, ...]) -> RawDataElement:
    return encoding.sequence(
        _METHOD_CODES,
        [
            encoding.encode(
                [
                    (_CODE_VALUE, encoding.text(_CODE_VALUE, "SH", code.value)),
                    (_CODING_SCHEME, encoding.text(_CODING_SCHEME, "SH", _SCHEME)),
                    (_CODE_MEANING, encoding.text(_CODE_MEANING, "LO", code.meaning)),
                ]
            )
            for code in codes
        ],
    )
