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
from station.pseudonymisation.values import element_at, raw_text

_FORMS = {
    "CS": r"[A-Z0-9_ ]{0,16}",
    "AS": r"(?:\d{3}[DWMY])?",
    "DS": r"(?:[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)?",
    "IS": r"(?:[+-]?\d{1,12})?",
}
_FORM = {vr: re.compile(form) for vr, form in _FORMS.items()}
# Whole values with their backslashes, for text that may stay just as it is.
_WHOLE = {
    vr: re.compile(rf"(?=[^\\]{{0,16}}(?:\\|\Z)){form}(?:\\(?=[^\\]{{0,16}}(?:\\|\Z)){form})*")
    for vr, form in _FORMS.items()
}
_MAX_FORMED = 16
# The longest value in characters (PS3.5 table 6.2-1), and for unbounded text what we let pass.
_MAX_CHARACTERS = {"SH": 16, "AE": 16, "ST": 1024, "LT": 1024, "UT": 1024, "UC": 1024}
_MAX_OTHER = 64
_WORD = re.compile(r"[0-9A-Za-z]+")
_MIN_WORD = 3
_OLDEST = 89
_NAMES = (
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName",
    "AccessionNumber", "ReferringPhysicianName", "PatientBirthDate", "PerformingPhysicianName", "OperatorsName",
    "NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "RequestingPhysician", "ConsultingPhysicianName",
    "ResponsiblePerson", "StudyID", "AdmissionID", "MilitaryRank", "PatientAddress", "PatientTelephoneNumbers",
)  # fmt: skip
_IDENTIFYING = tuple(tag for tag in map(tag_for_keyword, _NAMES) if tag is not None)


@dataclass(frozen=True, slots=True)
class IdentityWords:
    """The words of an instance's own identifying attributes, against copies of them in text that is kept.

    Attributes:
        words: those long enough to tell anything where they stand in text.
        all_words: the short ones too, for text whose words are judged one by one.
    """

    words: frozenset[str]
    all_words: frozenset[str]
    numbers: tuple[str, ...]

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Collect the words of names, numbers and the accession."""
        found: set[str] = set()
        for tag in _IDENTIFYING:
            text = raw_text(element_at(dataset, tag))
            if text:
                found.update(_WORD.findall(text.decode("latin-1").casefold()))
        long = frozenset(word for word in found if len(word) >= _MIN_WORD)
        numbers = tuple(sorted(word for word in long if any(c.isdigit() for c in word)))
        return cls(long, frozenset(found), numbers)

    def stand_in(self, text: str) -> bool:
        """Tell whether one of the words stands in `text`, whole or inside a longer word that has digits."""
        for word in _WORD.findall(text.casefold()):
            if word in self.words or any(number in word for number in self.numbers):
                return True
        return False


def values_of(text: str) -> list[str]:
    """Return the values of a text without their padding; none for an empty text."""
    return [value.strip(" \0") for value in text.split("\\")] if text.strip(" \0") else []


def is_formed(vr: str, text: str) -> bool:
    """Tell whether a CS, AS, DS or IS may stay as it stands: each value has the form of PS3.5 table 6.2-1."""
    return _WHOLE[vr].fullmatch(text) is not None


def formed(vr: str, values: list[str]) -> str | None:
    """Return a CS, AS, DS or IS when every value has the form of PS3.5 table 6.2-1, else None."""
    form = _FORM[vr]
    if all(len(value) <= _MAX_FORMED and form.fullmatch(value) for value in values):
        return "\\".join(values)
    return None


def kept(vr: str, values: list[str], identity: IdentityWords) -> str | None:
    """Return kept text as it stands when it has a lawful length and names nobody, else None."""
    limit = _MAX_CHARACTERS.get(vr, _MAX_OTHER)
    if all(len(value) <= limit and not identity.stand_in(value) for value in values):
        return "\\".join(values)
    return None


def kept_age(values: list[str]) -> str | None:
    """Return a patient's age; above 89 years it is 90, whoever is that old is rare enough to be found by it."""
    age = formed("AS", values)
    if age is None or len(values) != 1:
        return None
    return "090Y" if age.endswith("Y") and int(age[:3]) > _OLDEST else age


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
