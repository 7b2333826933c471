"""Which cases a cohort is made from: series of CT, views, faces, masks; and which files nobody may be given any more."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from catalogue_log import COLLECTION, NOW, Intake, patient
from cohort_files import DEFINITION
from ct_files import CT_DEFINITION, hand_over

from policies.documents import digest_of
from policies.policy import ConsentMode
from policies.refusals import Refused
from station.catalogue import Catalogue
from station.cohorts import CaseSource, CohortDefinition
from station.handover import Acquisition, LabelRecord, LabelsContent, label_path

OFFERED = {COLLECTION: ConsentMode.OPT_IN}


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(tmp_path / "handover")


@pytest.fixture
def catalogue(intake: Intake, tmp_path: Path) -> Catalogue:
    return intake.catalogue(tmp_path / "station.db")


def chosen(catalogue: Catalogue, definition: CohortDefinition = CT_DEFINITION) -> list[CaseSource]:
    catalogue.sync()
    result = catalogue.cases(definition, OFFERED, timedelta(days=7), NOW)
    assert not isinstance(result, Refused)
    return list(result)


def test_a_ct_series_is_one_case_with_all_its_files(
    intake: Intake, catalogue: Catalogue, tmp_path: Path
) -> None:
    files = hand_over(intake, tmp_path, 1)
    hand_over(intake, tmp_path, 2)
    hand_over(intake, tmp_path, 1, collection="other")
    intake.clinical(1)
    intake.consent(p1="consent", p2="consent")
    one, two = chosen(catalogue)
    assert (one.case, one.patient, one.label) == ("2.25.1001", patient(1), 1)
    assert sorted(file.digest or "" for file in one.files) == sorted(files)
    assert all(file.path.is_file() for file in one.files)
    assert (two.case, two.label, len(two.files)) == ("2.25.1002", None, 12)


def test_a_series_in_two_collections_is_one_case_with_each_file_once(
    intake: Intake, catalogue: Catalogue, tmp_path: Path
) -> None:
    hand_over(intake, tmp_path, 1)
    hand_over(intake, tmp_path, 1, collection="another")
    intake.consent(p1="consent")
    catalogue.sync()
    both = OFFERED | {"another": ConsentMode.OPT_IN}
    definition = CT_DEFINITION.model_copy(update={"collections": (COLLECTION, "another")})
    result = catalogue.cases(definition, both, timedelta(days=7), NOW)
    assert not isinstance(result, Refused)
    (case,) = result
    assert len(case.files) == len({file.digest for file in case.files}) == 12


def test_a_series_of_two_patients_is_nobodys(intake: Intake, catalogue: Catalogue, tmp_path: Path) -> None:
    hand_over(intake, tmp_path, 1)
    hand_over(intake, tmp_path, 2, series_uid="2.25.1001")
    hand_over(intake, tmp_path, 3)
    intake.consent(p1="consent", p2="consent", p3="consent")
    assert [case.patient for case in chosen(catalogue)] == [patient(3)]


def test_a_face_in_one_instance_marks_the_series(
    intake: Intake, catalogue: Catalogue, tmp_path: Path
) -> None:
    for number, face in ((1, True), (2, False), (3, None)):
        hand_over(intake, tmp_path, number, acquisition=Acquisition(recognizable_face=face))
    hand_over(intake, tmp_path, 4, body_part="")
    intake.consent(p1="consent", p2="consent", p3="consent", p4="consent")
    faces = {case.patient: case.recognizable_face for case in chosen(catalogue)}
    assert faces == {patient(1): True, patient(2): False, patient(3): None}


def test_other_views_are_not_chosen(intake: Intake, catalogue: Catalogue) -> None:
    intake.instances(1, view_position="PA")
    intake.instances(2, view_position="LL")
    intake.instances(3, view_position="")
    intake.consent(p1="consent", p2="consent", p3="consent")
    frontal = DEFINITION.model_copy(update={"view_positions": ("PA", "AP")})
    assert [case.patient for case in chosen(catalogue, frontal)] == [patient(1)]
    assert len(chosen(catalogue, DEFINITION)) == 3


def mask(intake: Intake, number: int, data: bytes, *names: str) -> str:
    digest = digest_of(data)
    place = label_path(intake.folder, digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    record = LabelRecord(
        file=digest,
        size_bytes=len(data),
        format="nifti",
        collection=COLLECTION,
        patient=patient(number),
        study_uid=f"2.25.{number + 1}",
        series_uid=f"2.25.{number + 1000}",
        names=names,
    )
    intake.log.append(LabelsContent(labels=(record,)), intake.operation(), now=NOW)
    return digest


def test_masks_go_with_their_series_where_they_are_asked_for(
    intake: Intake, catalogue: Catalogue, tmp_path: Path
) -> None:
    for number in (1, 2):
        hand_over(intake, tmp_path, number)
    wanted = mask(intake, 1, b"lesions", "lesion", "vessel")
    mask(intake, 1, b"bones", "bone")
    intake.consent(p1="consent", p2="consent")
    assert [case.masks for case in chosen(catalogue)] == [(), ()]
    definition = CT_DEFINITION.model_copy(update={"masks": ("lesion",)})
    with_mask, without = chosen(catalogue, definition)
    assert without.masks == ()
    (source,) = with_mask.masks
    assert (source.file.digest, source.names, source.format) == (wanted, ("lesion", "vessel"), "nifti")
    assert source.file.path.read_bytes() == b"lesions"


@pytest.mark.parametrize(
    ("answers", "modes", "usable"),
    [
        ({"p1": "consent"}, OFFERED, True),
        ({"p1": "objection"}, OFFERED, False),
        ({}, OFFERED, False),
        ({}, {COLLECTION: ConsentMode.OPT_OUT}, True),
        ({"p1": "objection"}, {COLLECTION: ConsentMode.OPT_OUT}, True),
        ({"p1": "consent"}, {}, False),
    ],
)
def test_files_that_nobody_may_be_given_are_told(
    intake: Intake,
    catalogue: Catalogue,
    tmp_path: Path,
    answers: dict[str, str],
    modes: Mapping[str, ConsentMode],
    *,
    usable: bool,
) -> None:
    """With opt-out, an objection to one purpose leaves the others."""
    files = hand_over(intake, tmp_path, 1)
    catalogue.sync()
    assert catalogue.no_longer_usable(files, modes) == set(files)
    intake.consent(**answers)
    catalogue.sync()
    assert catalogue.no_longer_usable(files, modes) == (set() if usable else set(files))
    unknown = digest_of(b"unknown")
    assert unknown in catalogue.no_longer_usable([unknown], modes)
