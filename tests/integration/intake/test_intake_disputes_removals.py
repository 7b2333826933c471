"""Removals at the source, and studies that turn out to be disputed after they were handed over."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from intake_kit import contents, folder_of, image, live_instances, uid

from station.handover import RemovedContent
from station.intake.installation import init_intake
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.intake.quarantine import Review

REVIEW = Review("steward", "looked at it")


@pytest.fixture
def paths(tmp_path: Path) -> IntakePaths:
    return init_intake(tmp_path / "home")


@pytest.fixture
def intake(paths: IntakePaths) -> Iterator[Intake]:
    with Intake(paths) as opened:
        yield opened


def reasons(paths: IntakePaths) -> list[str]:
    found = [content for content in contents(paths) if isinstance(content, RemovedContent)]
    return [removal.reason for content in found for removal in content.removals]


def test_an_instance_removed_at_its_source_is_removed_everywhere_once(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    source = folder_of(tmp_path, image(1), image(2))
    intake.import_folder(source, "cxr")
    intake.import_folder(source, "other")
    assert intake.remove_instances([uid(1), uid(99)], "rejected") == 2
    assert reasons(paths) == ["rejected", "rejected"]
    assert {record.sop_instance_uid for record in live_instances(paths).values()} == {
        intake.remap_uid(uid(2))
    }
    assert intake.remove_instances([uid(1)], "rejected") == 0
    assert len(reasons(paths)) == 2
    assert intake.status().instances == 2


def test_what_was_removed_does_not_come_back_by_itself(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    source = folder_of(tmp_path, image(1))
    intake.import_folder(source, "cxr")
    intake.remove_instances([uid(1)], "deleted")
    again = intake.import_folder(source, "cxr")
    assert again.quarantined == {"instance-removed": 1}
    assert live_instances(paths) == {}
    (file,) = intake.quarantine.files("instance-removed")
    intake.quarantine.release(file.id, REVIEW)
    assert len(live_instances(paths)) == 1
    assert intake.import_folder(source, "cxr").duplicates == 1


def test_a_rejection_that_overtakes_its_instance_keeps_it_out(intake: Intake, tmp_path: Path) -> None:
    assert intake.remove_instances([uid(1)], "rejected", expected=True) == 0
    assert intake.import_folder(folder_of(tmp_path, image(1)), "cxr").quarantined == {"instance-removed": 1}
    assert intake.remove_instances([uid(2)], "rejected") == 0
    assert intake.import_folder(folder_of(tmp_path, image(2)), "cxr").accepted == 1


def test_what_is_held_can_be_compared_with_the_source(intake: Intake, tmp_path: Path) -> None:
    intake.import_folder(folder_of(tmp_path, image(1), image(2), image(3, study=2000)), "cxr")
    held = {study.study_uid: study for study in intake.held("cxr")}
    study = held[intake.remap_uid(uid(1000))]
    assert (study.accession, study.sop_instance_uids) == (
        "A1000",
        frozenset({intake.remap_uid(uid(1)), intake.remap_uid(uid(2))}),
    )
    assert intake.held("other") == []
    assert intake.remove_held(study.sop_instance_uids, "deleted") == 2
    assert [study.accession for study in intake.held("cxr")] == ["A2000"]


def test_a_second_patient_in_a_later_batch_takes_the_study_back_from_compute(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    intake.import_folder(folder_of(tmp_path, image(1), image(2), image(3, study=2000)), "cxr")
    assert len(live_instances(paths)) == 3
    other = intake.import_folder(folder_of(tmp_path, image(4, "9252896")), "cxr")
    assert other.quarantined == {"study-patient-mismatch": 1}
    assert reasons(paths) == ["quarantined", "quarantined"]
    assert {record.study_uid for record in live_instances(paths).values()} == {intake.remap_uid(uid(2000))}
    for source in (image(5), image(1), image(4, "9252896")):
        later = intake.import_folder(folder_of(tmp_path, source), "cxr")
        assert later.quarantined == {"study-patient-mismatch": 1}
    assert len(reasons(paths)) == 2


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_disputed_study_is_quarantined_whole_whatever_the_order(
    intake: Intake, paths: IntakePaths, tmp_path: Path, order: tuple[int, ...]
) -> None:
    files = (image(1), image(2, "9252896"), image(3))
    report = intake.import_folder(folder_of(tmp_path, *(files[number] for number in order)), "cxr")
    assert (report.accepted, report.quarantined) == (0, {"study-patient-mismatch": 3})
    assert len(list(paths.quarantine.rglob("*-0*"))) == 3
    assert live_instances(paths) == {}
    assert reasons(paths) == []


def test_a_person_settles_whose_the_study_is(intake: Intake, paths: IntakePaths, tmp_path: Path) -> None:
    intake.import_folder(folder_of(tmp_path, image(1), image(2, "9252896"), image(3)), "cxr")
    right, wrong, also = intake.quarantine.files()
    intake.quarantine.release(right.id, REVIEW)
    intake.quarantine.release(also.id, REVIEW)
    from policies.errors import RefusedError

    with pytest.raises(RefusedError, match="another patient"):
        intake.quarantine.release(wrong.id, REVIEW)
    intake.quarantine.discard(wrong.id, REVIEW)
    assert len(live_instances(paths)) == 2
    # From now on the study is that patient's; a file of another is quarantined alone.
    later = intake.import_folder(folder_of(tmp_path, image(4), image(5, "9252896")), "cxr")
    assert (later.accepted, later.quarantined) == (1, {"study-patient-mismatch": 1})
    assert len(live_instances(paths)) == 3
