"""Which text may stay: values of the form their VR asks, and kept text that names nobody.

Pure. All text here is ASCII already; what was not has been refused before.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Self

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset

from station.pseudonymisation.table import load_kept_text

_FORMS = {
    "CS": re.compile(r"[A-Z0-9_ ]{0,16}"),
    "AS": re.compile(r"(?:\d{3}[DWMY])?"),
    "DS": re.compile(r"(?:[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)?"),
    "IS": re.compile(r"(?:[+-]?\d{1,12})?"),
}
_MAX_CHARACTERS = {"DS": 16, "LO": 64, "SH": 16}
_WORD = re.compile(r"[0-9A-Za-z]+")
_MIN_WORD = 3
_IDENTIFYING = (
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName",
    "AccessionNumber", "ReferringPhysicianName", "PatientBirthDate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class IdentityWords:
    """The words of an instance's own identifying attributes, against copies of them in text that is kept."""

    words: frozenset[str]

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Collect the words of names, numbers and the accession."""
        found: set[str] = set()
        for keyword in _IDENTIFYING:
            found.update(word.casefold() for word in _WORD.findall(str(dataset.get(keyword) or "")))
        return cls(frozenset(word for word in found if len(word) >= _MIN_WORD))

    def stand_in(self, text: str) -> bool:
        """Tell whether one of the words stands in `text`, whole or inside a longer word that has digits."""
        for word in _WORD.findall(text):
            folded = word.casefold()
            if folded in self.words:
                return True
            if any(known in folded for known in self.words if any(c.isdigit() for c in known)):
                return True
        return False


def formed(vr: str, values: list[str]) -> str | None:
    """Return a CS, AS, DS or IS as it stands when every value has the form of PS3.5 table 6.2-1, else None."""
    form, limit = _FORMS[vr], _MAX_CHARACTERS.get(vr, 16)
    if all(len(value) <= limit and form.fullmatch(value) for value in values):
        return "\\".join(values)
    return None


def kept(vr: str, values: list[str], identity: IdentityWords) -> str | None:
    """Return kept text as it stands when it has a lawful length and names nobody, else None."""
    limit = _MAX_CHARACTERS.get(vr, 64)
    if all(len(value) <= limit and not identity.stand_in(value) for value in values):
        return "\\".join(values)
    return None


def is_public_scheme(designator: str) -> bool:
    """Tell whether a coding scheme is one whose meanings are published; a local one's may say anything."""
    return designator.strip(" \0") in load_kept_text().public_coding_schemes


@cache
def time_beside(date_tag: int) -> int | None:
    """Return the tag of the TM that belongs to a DA: Study Date and Study Time, Date of ... and Time of ..."""
    keyword = keyword_for_tag(date_tag)
    for date_word, time_word in (("DateOf", "TimeOf"), ("Date", "Time")):
        if date_word in keyword:
            tag = tag_for_keyword(keyword.replace(date_word, time_word))
            if tag is not None and dictionary_VR(tag) == "TM":
                return tag
    return None
