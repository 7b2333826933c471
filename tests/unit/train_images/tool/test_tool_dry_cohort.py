"""The made-up cohort of a dry run has the shape that the train asks for: modalities, views, profile, masks, form, size."""

import json
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom import dcmread
from tool_kit import MANIFEST, make_bundle

from policies.documents import load_yaml
from policies.manifest import TrainManifest
from policies.profiles import load_profile, shipped_profiles
from station.cohorts import CohortDefinition, CohortKey, FrozenCohort, define, freeze, wipe
from train_images.phantoms.hospitals import people_of_hospital
from train_images.tool.dry_clinical import clinical_value
from train_images.tool.dry_cohort import DryCases, DryImages, make_cases
from train_images.tool.dry_terms import dry_policy

DATA = "{modalities: [DX], profile: thorax-1@1, clinical_fields: [pneumonia], label: pneumonia}"


def asking(data: str) -> TrainManifest:
    return load_yaml(TrainManifest, MANIFEST.replace(DATA, data).encode(), what="train.yaml")


def frozen(tmp_path: Path, data: str, images: DryImages) -> tuple[FrozenCohort, DryCases]:
    """The cohort as a station would lay it out; nothing in it may be left out."""
    train = make_bundle(tmp_path / "bundle", manifest=MANIFEST.replace(DATA, data))
    made = make_cases(train.manifest, tmp_path / "phantoms", images)
    definition = define(dry_policy(train, None), train.manifest)
    assert isinstance(definition, CohortDefinition)
    few = definition.model_copy(update={"minimum_patients": 1})
    cohort = freeze(few, made.cases, tmp_path / "cohorts", CohortKey(bytes(32)))
    assert isinstance(cohort, FrozenCohort)
    assert cohort.left_out == {}
    return cohort, made


@pytest.mark.parametrize("profile", shipped_profiles())
def test_every_field_of_a_shipped_profile_has_values_that_fit_and_missing_ones(
    profile: str, tmp_path: Path
) -> None:
    known = load_profile(profile)
    names = ", ".join(field.name for field in known.fields)
    train = asking(f"{{modalities: [DX], profile: {profile}, clinical_fields: [{names}]}}")
    made = make_cases(train, tmp_path, DryImages(patients=150, seed=1, pixels=32))
    assert made.empty_fields == ()
    for field in known.fields:
        values = [case.clinical[field.name] for case in made.cases]
        there = [value for value in values if value is not None]
        assert [value for value in there if field.fault(value) is not None] == [], field.name
        assert len(there) > 0.8 * len(values), field.name
        assert field.shown(there[0]) is not None, field.name
        if field.name in made.drawn_fields and not field.required:
            assert len(there) < len(values), field.name
        # Sex comes from who was made up: two of four codes.
        if field.codes and field.name != "sex":
            assert {str(value) for value in there} == set(field.codes), field.name
        if field.kind == "flag":
            assert set(there) == {True, False}
    drawn = set(made.drawn_fields)
    assert drawn.isdisjoint({"sex", "age_years", "temperature_c"})
    assert drawn <= {field.name for field in known.fields}
    missing = Counter(value is None for case in made.cases for value in case.clinical.values())
    assert 0 < missing[True] < 0.1 * missing.total()


def test_a_value_is_the_same_whatever_else_is_asked_for(tmp_path: Path) -> None:
    one = "{modalities: [DX], profile: ncif-covid-1@1, clinical_fields: [co_rads]}"
    two = "{modalities: [DX], profile: ncif-covid-1@1, clinical_fields: [bmi_kg_m2, co_rads]}"
    images = DryImages(patients=6, seed=4, pixels=32)
    first, second = (
        [case.clinical["co_rads"] for case in make_cases(asking(data), tmp_path / str(number), images).cases]
        for number, data in enumerate((one, two))
    )
    assert first == second
    assert len(set(first)) > 1


def test_a_number_stays_within_its_field_where_most_lie_elsewhere() -> None:
    field = load_profile("ncif-covid-1@1").field("saturation_percent")
    (person,) = people_of_hospital(0, patients=1, seed=1)
    values = [clinical_value(field, person, person.studies[0], seed) for seed in range(300)]
    there = [value for value in values if isinstance(value, float)]
    assert max(there) == 100
    assert 40 <= min(there) < 90


def test_a_label_of_any_profile_is_learnt_from_the_images(tmp_path: Path) -> None:
    data = "{modalities: [DX], profile: ncif-covid-1@1, clinical_fields: [sex, icu_admission], label: icu_admission}"
    cohort, made = frozen(tmp_path, data, DryImages(patients=12, seed=2, pixels=64))
    assert made.borrowed_label == "icu_admission"
    entries = json.loads((cohort.path / "datalist.json").read_text())["training"]
    assert {entry["label"] for entry in entries} == {0, 1}
    assert "icu_admission" in (cohort.path / "clinical.csv").read_text().splitlines()[0]
    wipe(cohort)


def test_computed_radiography_and_other_views_are_made_where_they_are_asked_for(tmp_path: Path) -> None:
    data = "{modalities: [CR, DX], profile: thorax-1@1, clinical_fields: [], label: pneumonia, view_positions: [AP, LL]}"
    cohort, made = frozen(tmp_path, data, DryImages(patients=12, seed=2, pixels=64))
    kinds = Counter((case.modality, case.view_position) for case in made.cases)
    assert set(kinds) == {(modality, view) for modality in ("CR", "DX") for view in ("AP", "LL")}
    for case in made.cases:
        image = dcmread(case.files[0].path)
        assert (image.Modality, image.ViewPosition) == (case.modality, case.view_position)
        assert image.SOPClassUID.name.startswith(
            {"CR": "Computed Radiography", "DX": "Digital X-Ray"}[case.modality]
        )
        assert ("DetectorType" in image) == (case.modality == "DX")
    wipe(cohort)


def test_computed_radiography_alone(tmp_path: Path) -> None:
    data = "{modalities: [CR], profile: thorax-1@1, clinical_fields: [], label: pneumonia}"
    cohort, made = frozen(tmp_path, data, DryImages(patients=8, seed=2, pixels=64))
    assert {case.modality for case in made.cases} == {"CR"}
    assert {case.view_position for case in made.cases} == {"PA", "AP"}
    wipe(cohort)


def test_a_train_for_dicom_files_gets_them(tmp_path: Path) -> None:
    data = "{modalities: [CT], profile: thorax-1@1, clinical_fields: [], label: pneumonia, representation: dicom}"
    cohort, _ = frozen(tmp_path, data, DryImages(patients=3, seed=2, pixels=32, slices=5))
    folders = sorted((cohort.path / "dicom").iterdir())
    assert folders
    assert all(len(list(folder.iterdir())) == 5 for folder in folders)
    wipe(cohort)


def test_images_are_as_large_as_asked_for_and_show_the_same_body(tmp_path: Path) -> None:
    data = "{modalities: [CT], profile: thorax-1@1, clinical_fields: [], label: pneumonia, masks: [nodule]}"
    volumes = {}
    for name, images in (
        ("small", DryImages(patients=4, seed=2)),
        ("large", DryImages(patients=4, seed=2, pixels=96, slices=32)),
    ):
        (tmp_path / name).mkdir()
        cohort, made = frozen(tmp_path / name, data, images)
        assert made.shape == ((64, 64, 24) if name == "small" else (96, 96, 32))
        for path in sorted((cohort.path / "images").iterdir()):
            image = nibabel.load(path)
            assert image.shape == made.shape
            # As large a part of the body, whatever the voxels.
            assert np.linalg.norm(image.affine[:3, :3], axis=0) * image.shape == pytest.approx(
                [384, 352, 120]
            )
            mask = nibabel.load(cohort.path / "labels" / path.name).get_fdata()
            volumes.setdefault(path.name, []).append(mask.sum() * abs(np.linalg.det(image.affine[:3, :3])))
        wipe(cohort)
    # The nodule takes the same place in the body, in smaller voxels: so do the images.
    pairs = [pair for pair in volumes.values() if pair[0] > 0]
    assert pairs
    for small, large in pairs:
        assert large == pytest.approx(small, rel=0.35)


def test_a_train_without_a_program_has_cases_of_its_modality_and_no_image_worth_making(
    tmp_path: Path,
) -> None:
    text = (Path(__file__).parents[4] / "train_images" / "cohort-statistics" / "train.yaml").read_text()
    train = load_yaml(TrainManifest, text.replace("[DX]", "[CT]").encode(), what="train.yaml")
    made = make_cases(train, tmp_path, DryImages(patients=4, seed=1, pixels=512))
    assert made.shape == ()
    assert {case.modality for case in made.cases} == {"CT"}
    assert dcmread(made.cases[0].files[0].path).Rows == 32
