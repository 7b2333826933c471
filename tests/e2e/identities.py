"""Who the phantoms' patients are, and whether any of them stands in some bytes: in packed entries and in signed payloads too."""

import base64
import binascii
import io
import re
import zipfile
from dataclasses import dataclass
from typing import Final

import numpy as np

from train_images.phantoms.hospitals import _SITES, DEFAULT_SEED
from train_images.phantoms.people import Person, make_people

HOSPITALS: Final = 3
PATIENTS: Final = 60
"""As many as `python -m tests.e2e.demo --phantoms` generates."""

# A number within a digest or behind a decimal point is nobody's.
_NUMBER: Final = re.compile(rb"(?<![0-9a-f.])[0-9]{7,9}(?![0-9a-f])")
_ACCESSION: Final = re.compile(rb"[A-C][0-9]{8}")
_DAY: Final = re.compile(rb"19[0-9]{2}-[0-9]{2}-[0-9]{2}")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]{24,}={0,2}")


@dataclass(frozen=True)
class Phantoms:
    """The generated patients and what they are known by."""

    people: tuple[Person, ...]
    tokens: frozenset[bytes]
    names: re.Pattern[bytes]

    @classmethod
    def of_the_demo(cls) -> "Phantoms":
        """Those that the demo generates: equal arguments give equal hospitals."""
        people = tuple(
            person
            for index in range(HOSPITALS)
            for person in make_people(
                np.random.default_rng([DEFAULT_SEED, index]),
                count=PATIENTS,
                prevalence=_SITES[index][-1],
                letter="ABC"[index],
            )
        )
        tokens = {
            known.encode()
            for person in people
            for known in (
                person.patient_id,
                person.citizen_number,
                person.birth.isoformat(),
                person.birth.strftime("%Y%m%d"),
                *(study.accession for study in person.studies),
            )
        }
        names = {
            re.escape(form.encode())
            for person in people
            for form in (
                f"{person.family}^{person.given}",
                f"{person.given} {person.family}",
                f"{person.family}, {person.given}",
            )
        }
        return cls(people, frozenset(tokens), re.compile(b"|".join(sorted(names))))

    def found_in(self, data: bytes) -> set[bytes]:
        """Return the names and numbers of patients that stand in the bytes, or in what is packed or encoded in them."""
        found = self._found(data)
        if zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(io.BytesIO(data)) as pack:
                for entry in pack.infolist():
                    found |= self._found(entry.filename.encode()) | self.found_in(pack.read(entry))
        for text in _BASE64.findall(data):
            try:
                found |= self._found(base64.b64decode(text, validate=True))
            except binascii.Error:
                continue
        return found

    def _found(self, data: bytes) -> set[bytes]:
        seen = {match for pattern in (_NUMBER, _ACCESSION, _DAY) for match in pattern.findall(data)}
        return (seen & self.tokens) | set(self.names.findall(data))
