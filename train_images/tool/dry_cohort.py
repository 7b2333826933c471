"""The cases of a dry run: made-up radiographs or CT series as a station's catalogue would offer them.

In the shape that the train asks for: its modalities, its views, its masks, and a value of each clinical field of its profile. Nothing is
pseudonymised, since nobody in them exists; everybody consents. A label that made-up people do not have is their finding under another
name, and a field that is no field of the profile is empty: the report says so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Final, Literal

import numpy as np

from policies.errors import DataError
from policies.manifest import Modality, TrainManifest
from policies.profiles import Profile, load_profile
from station.cohorts import CaseSource, MaskSource, SourceFile, nifti
from train_images.phantoms import (
    CtScanner,
    PhantomSeries,
    RadiographKind,
    generate_hospitals,
    write_ct_series,
)
from train_images.phantoms.acquired import acquired
from train_images.phantoms.hospitals import people_of_hospital
from train_images.phantoms.people import Person, Study, make_people
from train_images.tool.dry_clinical import (
    FINDING,
    clinical_value,
    finding_as,
    has_value_of,
    made_up_fields,
    unknown_fields,
)

_PREVALENCE: Final = 0.5
_VIEWS: Final = ("PA", "AP")
"""Of radiographs, where a train takes any view."""

_RADIOGRAPHS: Final[tuple[Literal["DX", "CR"], ...]] = ("DX", "CR")
_UNREAD_PX: Final = 32
_UNREAD_SLICES: Final = 5
_RADIOGRAPH_PX: Final = 256
_FIELD_OF_VIEW_MM: Final = (352.0, 384.0)
_COVERED_MM: Final = 120.0
_COARSEST_MM: Final = 10.0
"""A station takes no CT with larger pixels, and few slices are to lie no further apart."""


@dataclass(frozen=True, slots=True)
class DryImages:
    """How many made-up patients there are, and how large their images.

    Attributes:
        patients: how many.
        seed: equal seeds give equal cases.
        pixels: rows and columns; None for small ones (256 of a radiograph, 64 of a CT), which are quickly made.
        slices: of a CT; None for 24.
    """

    patients: int
    seed: int
    pixels: int | None = None
    slices: int | None = None

    @property
    def scanner(self) -> CtScanner:
        """What the CT series are made with: the same part of the body, in as many voxels as were asked for."""
        usual = CtScanner()
        pixels, slices = self.pixels or usual.size_px, self.slices or usual.slices
        across, down = (round(min(side / pixels, _COARSEST_MM), 6) for side in _FIELD_OF_VIEW_MM)
        step = round(min(_COVERED_MM / slices, _COARSEST_MM), 6)
        return replace(
            usual,
            size_px=pixels,
            slices=slices,
            pixel_mm=(across, down),
            increment_mm=step,
            thickness_mm=round(1.2 * step, 6),
        )


@dataclass(frozen=True, slots=True)
class DryCases:
    """What the cohort is frozen from.

    Attributes:
        cases: one per study: a radiograph, or a CT series.
        empty_fields: clinical fields the train asks for that its profile does not have.
        drawn_fields: those whose values were drawn without regard to anything else of the patient.
        borrowed_label: the label the train asks for, where the phantoms' finding stands in for it.
        shape: of an image, in pixels or voxels; empty where no image was made.
    """

    cases: tuple[CaseSource, ...]
    empty_fields: tuple[str, ...]
    drawn_fields: tuple[str, ...]
    borrowed_label: str | None
    shape: tuple[int, ...]


def make_cases(manifest: TrainManifest, into: Path, images: DryImages) -> DryCases:
    """Make up one hospital and return its images as cases: CT for a train that asks for CT, else radiographs.

    Args:
        manifest: which modalities, views, masks, fields and label the train asks for.
        into: a folder for the files.
        images: how many and how large.

    Raises:
        NotFoundError: there is no such profile.
        UsageError: a number is out of range.
    """
    form = _Form(manifest, load_profile(manifest.data.profile), images.seed)
    if manifest.program is None:
        # Nobody reads an image where no program runs; a case has one all the same.
        images = replace(images, pixels=_UNREAD_PX, slices=_UNREAD_SLICES)
    if Modality.CT in manifest.data.modalities:
        shape: tuple[int, ...] = (images.scanner.size_px,) * 2 + (images.scanner.slices,)
        cases = _make_ct(form, into, images)
    else:
        shape = (images.pixels or _RADIOGRAPH_PX,) * 2
        cases = _make_radiographs(form, into, images)
    return form.described(cases, () if manifest.program is None else shape)


@dataclass(frozen=True, slots=True)
class _Form:
    """What the hospital's form says, for the fields that one train asks for."""

    manifest: TrainManifest
    profile: Profile
    seed: int

    @property
    def label(self) -> str:
        return self.manifest.data.label or FINDING

    @property
    def wanted(self) -> tuple[str, ...]:
        """The fields asked for, the label among them."""
        label = self.manifest.data.label
        return tuple(dict.fromkeys([*self.manifest.data.clinical_fields, *([label] if label else [])]))

    def case(
        self, files: Sequence[Path], person: Person, study: Study, kind: RadiographKind | None
    ) -> CaseSource:
        fields = {field.name: field for field in self.profile.fields}
        values = {
            name: clinical_value(fields[name], person, study, self.seed) if name in fields else None
            for name in self.wanted
        }
        shown = (
            values.get(self.label) if has_value_of(self.label) else finding_as(fields.get(self.label), study)
        )
        if self.manifest.data.label is not None:
            values[self.label] = shown
        return CaseSource(
            case=study.accession,
            patient=person.patient_id,
            study=study.accession,
            files=tuple(SourceFile(path) for path in files),
            label=shown if isinstance(shown, int | float) else None,
            clinical=values,
            modality=Modality.CT.value if kind is None else kind.modality,
            view_position="" if kind is None else kind.view,
            acquisition=acquired(files[0]) if self.manifest.data.acquisition_fields else {},
        )

    def described(self, cases: Iterable[CaseSource], shape: tuple[int, ...]) -> DryCases:
        borrowed = self.manifest.data.label is not None and not has_value_of(self.label)
        others = tuple(name for name in self.wanted if name != self.manifest.data.label)
        return DryCases(
            tuple(cases),
            unknown_fields(self.profile, others),
            made_up_fields(self.profile, others),
            self.label if borrowed else None,
            shape,
        )


def _make_radiographs(form: _Form, into: Path, images: DryImages) -> Iterable[CaseSource]:
    kinds = tuple(
        RadiographKind(modality, view)
        for view, modality in product(form.manifest.data.view_positions or _VIEWS, _RADIOGRAPHS)
        if modality in form.manifest.data.modalities
    )
    size_px = images.pixels or _RADIOGRAPH_PX
    (hospital,) = generate_hospitals(
        into, hospitals=1, patients=images.patients, seed=images.seed, size_px=size_px, kinds=kinds
    )
    # One file per study, both in the order in which the hospital's studies were made up.
    files = sorted((hospital.folder / "dicom").glob("*.dcm"))
    people = people_of_hospital(0, patients=images.patients, seed=images.seed)
    studies = [(person, study) for person in people for study in person.studies]
    if len(files) != len(studies):
        raise DataError("the phantoms' images and their form do not match")
    for number, (path, (person, study)) in enumerate(zip(files, studies, strict=True)):
        yield form.case((path,), person, study, kinds[number % len(kinds)])


def _make_ct(form: _Form, into: Path, images: DryImages) -> Iterable[CaseSource]:
    random = np.random.default_rng([images.seed, 0])
    masks = form.manifest.data.masks
    for person in make_people(random, count=images.patients, prevalence=_PREVALENCE, letter="A"):
        for study in person.studies:
            series = write_ct_series(
                into / study.accession, person=person, study=study, seed=images.seed, scanner=images.scanner
            )
            case = form.case(series.files, person, study, None)
            if masks:
                case = replace(case, masks=(_mask(into / f"{study.accession}.nii", series, masks),))
            yield case


def _mask(path: Path, series: PhantomSeries, names: tuple[str, ...]) -> MaskSource:
    """Write the phantom's nodule as the first of the masks asked for; the others are there, and empty."""
    labels = series.nodule.astype(np.uint8)
    path.write_bytes(nifti.header(labels.shape[::-1], series.affine, labels.dtype) + labels.tobytes())
    return MaskSource(SourceFile(path), "nifti", names)
