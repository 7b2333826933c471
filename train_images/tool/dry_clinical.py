"""What a form says of the made-up patients of a dry run: a value for each field of any minimal-dataset profile. Pure.

What is known of a person who was made up (sex, date of birth, temperature, whether the images show the finding) is told as it is;
the rest is drawn as the profile describes its fields, so that every code, both ends and missing values come up. Equal seeds give equal
values, whatever else is asked for. Drawn values are plausible one by one and tell nothing of each other: nobody may look for an effect
in them.
"""

import hashlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

import numpy as np

from policies.profiles.model import Profile, ProfileField
from station.cohorts import JsonScalar
from train_images.phantoms.people import Person, Study

FINDING: Final = "pneumonia"
"""What the opacities and nodules on the phantoms are labelled as."""

_MISSING: Final = 0.05
_FLAGGED: Final = 0.3
_LONGEST_DAYS: Final = 30

_KNOWN: Final[Mapping[str, Callable[[Person, Study], JsonScalar]]] = {
    FINDING: lambda _, study: int(study.pneumonia),
    "sex": lambda person, _: person.sex,
    "age_years": lambda person, study: person.age_years(study.day),
    "temperature_c": lambda _, study: study.temperature_c,
    "crp_mg_l": lambda _, study: study.crp_mg_l,
    "smoker": lambda person, _: person.smoker,
}

_USUAL: Final[Mapping[str, tuple[float, float]]] = {
    "saturation_percent": (94.0, 4.0),
    "bmi_kg_m2": (27.0, 5.0),
    "ct_severity_score": (10.0, 5.0),
}
"""Mean and standard deviation where the ends of a field's range are rare; round figures for trying programs, from no publication."""


def clinical_value(field: ProfileField, person: Person, study: Study, seed: int) -> JsonScalar:
    """Return what the form says of one field, as a hospital's catalogue would hold it; None where the form leaves it open.

    Args:
        field: of the profile.
        person: of whom.
        study: at which examination.
        seed: of the dry run.
    """
    if known := _KNOWN.get(field.name):
        value = known(person, study)
        # A profile of another name may have the field in another form.
        if value is None or field.fault(value) is None:
            return value
    random = _random(seed, field.name, study.accession)
    if random.random() < _MISSING and not field.required:
        return None
    return _drawn(field, study, random)


def finding_as(field: ProfileField | None, study: Study) -> int:
    """Return the phantoms' finding in the place of a label that they do not have: a number that fits the label's field."""
    found = int(study.pneumonia)
    if field is None or not field.codes or str(found) in field.codes:
        return found
    # A score that begins elsewhere: its lowest and its highest value.
    return int(field.codes[-1] if found else field.codes[0])


def has_value_of(name: str) -> bool:
    """Whether something is known of made-up people under a field's name."""
    return name in _KNOWN


def made_up_fields(profile: Profile, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return which fields are drawn at random, and not from what is known of the made-up patients."""
    return tuple(name for name in names if name in _names(profile) and name not in _KNOWN)


def unknown_fields(profile: Profile, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return which names are no field of the profile."""
    return tuple(name for name in names if name not in _names(profile))


def _names(profile: Profile) -> frozenset[str]:
    return frozenset(field.name for field in profile.fields)


def _random(seed: int, *parts: str) -> np.random.Generator:
    digest = hashlib.sha256("\x1f".join((str(seed), *parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _drawn(field: ProfileField, study: Study, random: np.random.Generator) -> JsonScalar:
    match field.kind:
        case "flag":
            return bool(random.random() < _FLAGGED)
        case "code":
            return field.codes[int(random.integers(len(field.codes)))]
        case "integer" if field.values:
            return int(field.codes[int(random.integers(len(field.codes)))])
        case "date":
            return (study.day - timedelta(days=int(random.integers(0, _LONGEST_DAYS)))).isoformat()
        case "number":
            return round(_number(field, random), 1)
        case "integer" | "days" | "age":
            return round(_number(field, random))


def _number(field: ProfileField, random: np.random.Generator) -> float:
    low = -float(_LONGEST_DAYS) if field.minimum is None else field.minimum
    high = low + 100.0 if field.maximum is None else field.maximum
    if field.name not in _USUAL:
        return float(random.uniform(low, high))
    mean, spread = _USUAL[field.name]
    return float(np.clip(random.normal(mean, spread), low, high))
