"""Generates whole made-up hospitals: a folder of DICOM files, an eCRF export and a consent list each.

The shape on disk::

    OUT/hospital-a/dicom/*.dcm     one file per study
    OUT/hospital-a/ecrf.csv        patient_id,accession,pneumonia,sex,birth_date,temperature_c,crp_mg_l,smoker
    OUT/hospital-a/consent.csv     patient_id,decision,purpose,date

Equal arguments give equal files. The label `pneumonia` is what the opacity on the picture shows, but for one study in
twenty, as reports err too.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from policies.errors import StorageError, UsageError
from train_images.phantoms.anatomy import Appearance, draw_chest
from train_images.phantoms.people import Person, make_people
from train_images.phantoms.radiographs import FRONTAL, Encoding, RadiographKind, Site, write_radiograph

DEFAULT_SEED: Final = 20261122
MAX_HOSPITALS: Final = 26
_LABEL_ERROR: Final = 0.05
_MARKED: Final = 0.2

_SITES: Final = (
    ("Ziekenhuis Wilgenoord", "Philips", "DigitalDiagnost C90", Encoding.PLAIN_8_BIT, Appearance(), 0.50),
    (
        "Medisch Centrum Duinzicht",
        "Siemens",
        "Ysio Max",
        Encoding.JPEG2000_12_BIT,
        Appearance(contrast=0.9, noise=0.025, blur_px=1.1),
        0.38,
    ),
    (
        "Sint Odulfus Gasthuis",
        "Canon Medical",
        "CXDI-410C",
        Encoding.JPEG_LS_INVERTED_12_BIT,
        Appearance(contrast=1.15, noise=0.015, blur_px=0.6),
        0.62,
    ),
)


@dataclass(frozen=True, slots=True)
class PhantomHospital:
    """What was generated for one hospital."""

    name: str
    folder: Path
    patients: int
    studies: int
    positive_studies: int
    objections: int


def generate_hospitals(
    out: Path,
    *,
    hospitals: int = 3,
    patients: int = 60,
    seed: int = DEFAULT_SEED,
    size_px: int = 256,
    kinds: Sequence[RadiographKind] = (FRONTAL,),
) -> tuple[PhantomHospital, ...]:
    """Generate made-up hospitals under `out`.

    Args:
        out: a folder; made when missing. Folders of hospitals must not be there yet.
        hospitals: 1 to 26; named hospital-a, hospital-b, ...
        patients: patients per hospital.
        seed: equal seeds give equal hospitals.
        size_px: rows and columns of each film.
        kinds: modality and view of the studies, in turn.

    Raises:
        UsageError: a number is out of range or a hospital's folder is there already.
        StorageError: the folder cannot be written.
    """
    if not 1 <= hospitals <= MAX_HOSPITALS:
        raise UsageError(f"{hospitals} hospitals; between 1 and {MAX_HOSPITALS} can be generated")
    if not 1 <= patients <= 100_000:
        raise UsageError(f"{patients} patients; between 1 and 100000 per hospital can be generated")
    if not 32 <= size_px <= 4096:
        raise UsageError(f"films of {size_px} pixels; between 32 and 4096 can be generated")
    try:
        return tuple(_generate(out, index, patients, seed, size_px, kinds) for index in range(hospitals))
    except FileExistsError as error:
        raise UsageError(
            "a hospital's folder is there already", hint="Choose an empty folder, or remove the old phantoms."
        ) from error
    except OSError as error:
        raise StorageError(f"the phantoms cannot be written ({error.strerror})") from error


def people_of_hospital(index: int, *, patients: int, seed: int) -> tuple[Person, ...]:
    """Return who the patients of a generated hospital are; their studies are in the order of its files.

    Args:
        index: of the hospital, from 0.
        patients: as many as it was generated with.
        seed: likewise.
    """
    site = _site(index)
    random = np.random.default_rng([seed, index])
    return make_people(random, count=patients, prevalence=site.prevalence, letter=site.letter)


def _generate(
    out: Path, index: int, patients: int, seed: int, size_px: int, kinds: Sequence[RadiographKind]
) -> PhantomHospital:
    letter = chr(ord("a") + index)
    site = _site(index)
    folder = out / f"hospital-{letter}"
    (folder / "dicom").mkdir(parents=True)
    random = np.random.default_rng([seed, index])
    people = make_people(random, count=patients, prevalence=site.prevalence, letter=site.letter)
    studies = [(person, study) for person in people for study in person.studies]
    for number, (person, study) in enumerate(studies):
        shown = study.pneumonia != (random.random() < _LABEL_ERROR)
        picture = draw_chest(
            random,
            size=size_px,
            opacity=bool(shown),
            appearance=site.appearance,
            marker=random.random() < _MARKED,
        )
        path = folder / "dicom" / f"{number:06d}.dcm"
        kind = kinds[number % len(kinds)]
        write_radiograph(path, picture, site=site, person=person, study=study, seed=seed, kind=kind)
    _write_ecrf(folder / "ecrf.csv", people)
    _write_consent(folder / "consent.csv", people)
    return PhantomHospital(
        name=folder.name,
        folder=folder,
        patients=len(people),
        studies=len(studies),
        positive_studies=sum(study.pneumonia for _, study in studies),
        objections=sum(person.objects for person in people),
    )


def _site(index: int) -> Site:
    institution, manufacturer, model, encoding, appearance, prevalence = _SITES[index % len(_SITES)]
    again = index // len(_SITES)
    return Site(
        letter=chr(ord("A") + index),
        institution=f"{institution} {again + 1}" if again else institution,
        manufacturer=manufacturer,
        model=model,
        encoding=encoding,
        appearance=appearance,
        prevalence=prevalence,
    )


def form_rows(person: Person) -> list[dict[str, str]]:
    """Return what the form says of each of a person's studies, by column."""
    smoker = {True: "yes", False: "no", None: ""}
    return [
        {
            "patient_id": person.patient_id,
            "accession": study.accession,
            "pneumonia": str(int(study.pneumonia)),
            "sex": person.sex,
            "birth_date": person.birth.isoformat(),
            "temperature_c": "" if study.temperature_c is None else str(study.temperature_c),
            "crp_mg_l": "" if study.crp_mg_l is None else str(study.crp_mg_l),
            "smoker": smoker[person.smoker],
        }
        for study in person.studies
    ]


def _write_ecrf(path: Path, people: Iterable[Person]) -> None:
    rows = [row for person in people for row in form_rows(person)]
    _write_csv(path, tuple(rows[0]), (tuple(row.values()) for row in rows))


def _write_consent(path: Path, people: Iterable[Person]) -> None:
    rows = (
        (
            person.patient_id,
            "objection" if person.objects else "consent",
            "research-participants",
            person.consent_day.isoformat(),
        )
        for person in people
    )
    _write_csv(path, ("patient_id", "decision", "purpose", "date"), rows)


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
