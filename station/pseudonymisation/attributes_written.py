"""The attributes that tell what was done (PS3.15 E.1.1 step 6 and E.3; codes of PS3.16 CID 7050).

What is claimed was done by us to this instance: the profile, the options chosen, and of the pixels what their
inspection found. Nothing is claimed of pixels that nobody looked at.
"""

from typing import Protocol

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

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

IMPLEMENTATION_CLASS_UID = "2.25.172271352148312817217374155372951862101"
IMPLEMENTATION_VERSION = "PHT_RADIOLOGY_1"
NOT_INSPECTED = "not-inspected"
_SCHEME = "DCM"
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
        status: "not-inspected" claims nothing, whatever the other attributes say.
        claims_clean_pixels: burned-in text was looked for everywhere, and what was found was masked (113101).
        recognizable_face: whether a face could be made out; None where nobody looked.
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


def write(
    result: Dataset,
    source: Dataset,
    method: list[str],
    options: DeidentificationOptions,
    pixels: PixelClaims | None = None,
) -> None:
    """Write the de-identification attributes; codes that stand already are kept before ours.

    An earlier De-identification Method is free text, and is replaced. Burned In Annotation and Recognizable Visual
    Features are written where they are known, and stand in no output otherwise (PS3.15 E.3.1, E.3.2).
    """
    result.PatientIdentityRemoved = "YES"
    result.DeidentificationMethod = method
    result.LongitudinalTemporalInformationModified = (
        "MODIFIED" if Option.MODIFIED_DATES in options.chosen else "REMOVED"
    )
    ours = [*options.codes(), *_claimed(pixels)]
    stated = [code for code in _stated(source) if code not in ours]
    result.DeidentificationMethodCodeSequence = Sequence(
        [_code(code) for code in (*stated, *sorted(ours, key=lambda code: code.value))]
    )
    if pixels is None or pixels.status == NOT_INSPECTED:
        return
    if pixels.claims_clean_pixels:
        result.BurnedInAnnotation = "NO"
    if pixels.recognizable_face is not None:
        result.RecognizableVisualFeatures = "YES" if pixels.recognizable_face else "NO"


def _claimed(pixels: PixelClaims | None) -> list[MethodCode]:
    if pixels is None or pixels.status == NOT_INSPECTED:
        return []
    claimed = [CLEAN_PIXELS] if pixels.claims_clean_pixels else []
    return [*claimed, CLEAN_FACES] if pixels.recognizable_face is False else claimed


def _stated(source: Dataset) -> list[MethodCode]:
    sequence = source.get("DeidentificationMethodCodeSequence")
    if not isinstance(sequence, Sequence):
        return []
    found = [
        str(item.get("CodeValue") or "").strip()
        for item in sequence
        if str(item.get("CodingSchemeDesignator") or "").strip() == _SCHEME
    ]
    return [_EARLIER[code] for code in dict.fromkeys(found) if code in _EARLIER]


def _code(code: MethodCode) -> Dataset:
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = _SCHEME
    item.CodeMeaning = code.meaning
    return item
