"""Makes up the people on generated radiographs: names, numbers, dates, and what a form says of them.

Nobody here exists. Names are common ones; numbers and dates come from a seeded generator.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np

_GIVEN_F: Final = ("Anna", "Eva", "Fatma", "Iris", "Johanna", "Lotte", "Noor", "Sanne", "Zoë", "Mieke")
_GIVEN_M: Final = ("Bram", "Daan", "Emre", "Hendrik", "Jan", "Kees", "Lars", "Mohammed", "Piet", "Tijn")
_FAMILY: Final = (
    "Bakker", "Bos", "de Vries", "Dekker", "El Amrani", "Jansen", "Kaya", "Meijer", "Mulder", "Peters",
    "Smit", "van den Berg", "van Dijk", "Vermeulen", "Visser", "Vos", "Willems", "Yilmaz",
)  # fmt: skip
_FIRST_STUDY: Final = date(2019, 3, 1)
_CONSENT_DAY: Final = date(2020, 11, 5)
_OBJECTING: Final = 0.05


@dataclass(frozen=True, slots=True)
class Study:
    """One chest radiograph's examination.

    Attributes:
        accession: the accession number.
        day: the study date.
        time_s: seconds after midnight.
        pneumonia: the label.
        temperature_c: from the form; None where the form leaves it open.
        crp_mg_l: likewise.
    """

    accession: str
    day: date
    time_s: int
    pneumonia: bool
    temperature_c: float | None
    crp_mg_l: float | None


@dataclass(frozen=True, slots=True)
class Person:
    """One made-up patient with all studies."""

    patient_id: str
    citizen_number: str
    family: str
    given: str
    sex: str
    birth: date
    smoker: bool | None
    objects: bool
    consent_day: date
    studies: tuple[Study, ...]

    def age_years(self, day: date) -> int:
        """Return the age on a day."""
        return day.year - self.birth.year - ((day.month, day.day) < (self.birth.month, self.birth.day))


def make_people(
    random: np.random.Generator, *, count: int, prevalence: float, letter: str
) -> tuple[Person, ...]:
    """Make up patients of one hospital: some with several studies, some who object.

    Args:
        random: the only source of variation.
        count: patients.
        prevalence: share of patients with the finding; met exactly but for rounding.
        letter: first letter of the hospital's accession numbers.
    """
    numbers = random.choice(9_000_000, size=count, replace=False) + 1_000_000
    ill = np.zeros(count, dtype=bool)
    ill[: round(prevalence * count)] = True
    random.shuffle(ill)
    objecting = random.permutation(count) < round(_OBJECTING * count)
    return tuple(
        _person(random, str(number), ill=bool(sick), objects=bool(objects), letter=letter)
        for number, sick, objects in zip(numbers, ill, objecting, strict=True)
    )


def _person(random: np.random.Generator, number: str, *, ill: bool, objects: bool, letter: str) -> Person:
    sex = str(random.choice(("F", "M")))
    birth = date(1930, 1, 1) + timedelta(days=int(random.integers(0, 65 * 365)))
    studies = int(random.choice((1, 1, 1, 1, 2, 3)))
    first = _FIRST_STUDY + timedelta(days=int(random.integers(0, 700)))
    smoker = bool(random.integers(0, 2)) if random.random() > 0.1 else None
    return Person(
        patient_id=number,
        citizen_number=str(int(random.integers(100_000_000, 999_999_999))),
        family=str(random.choice(_FAMILY)),
        given=str(random.choice(_GIVEN_F if sex == "F" else _GIVEN_M)),
        sex=sex,
        birth=birth,
        smoker=smoker,
        objects=objects,
        consent_day=_CONSENT_DAY,
        studies=tuple(
            _study(random, first + timedelta(days=11 * index), ill=ill, letter=letter)
            for index in range(studies)
        ),
    )


def _study(random: np.random.Generator, day: date, *, ill: bool, letter: str) -> Study:
    temperature = round(float(random.normal(38.4 if ill else 37.2, 0.7)), 1)
    crp = round(float(np.exp(random.normal(4.3 if ill else 2.6, 0.8))), 1)
    return Study(
        accession=f"{letter}{int(random.integers(10_000_000, 100_000_000))}",
        day=day,
        time_s=int(random.integers(8 * 3600, 18 * 3600)),
        pneumonia=ill,
        temperature_c=temperature if random.random() > 0.05 else None,
        crp_mg_l=crp if random.random() > 0.05 else None,
    )
