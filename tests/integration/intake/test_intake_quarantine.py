"""The quarantine as a person's queue: seen, released, discarded, audited."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from intake_kit import CANARIES, folder_of, image, live_instances
from sqlalchemy import select

from policies.errors import NotFoundError, RefusedError, UsageError
from station.intake.installation import MIGRATIONS, init_intake
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.intake.quarantine import Review
from station.intake.schema import IntakeAuditRow
from station.intake.settings import IntakeSettings
from station.storage.database import open_database

REVIEW = Review("steward", "looked at it with the radiologist")


@pytest.fixture
def paths(tmp_path: Path) -> IntakePaths:
    return init_intake(tmp_path / "home")


@pytest.fixture
def intake(paths: IntakePaths) -> Iterator[Intake]:
    with Intake(paths, IntakeSettings(max_file_bytes=1 << 20)) as opened:
        yield opened


def conflict(intake: Intake, tmp_path: Path) -> str:
    """A file in quarantine that a person may release."""
    intake.import_folder(folder_of(tmp_path, image(1)), "cxr")
    intake.import_folder(folder_of(tmp_path, image(1, PixelData=bytes(12))), "cxr")
    (file,) = intake.quarantine.files("instance-conflict")
    return file.id


def test_the_queue_names_files_and_reasons(intake: Intake, tmp_path: Path) -> None:
    report = intake.import_folder(folder_of(tmp_path, b"no DICOM", image(1), image(2, PatientID="")), "cxr")
    assert report.accepted == 1
    assert intake.quarantine.counts() == {"not-dicom": 1, "patient-id-missing": 1}
    files = intake.quarantine.files()
    assert [(file.id, file.reason, file.collection) for file in files] == [
        (f"{report.batch}-0000000", "not-dicom", "cxr"),
        (f"{report.batch}-0000002", "patient-id-missing", "cxr"),
    ]
    assert [file.id for file in intake.quarantine.files("not-dicom")] == [files[0].id]
    assert all(file.since is not None for file in files)


def test_facts_hold_nothing_of_a_patient(intake: Intake, tmp_path: Path) -> None:
    intake.import_folder(
        folder_of(tmp_path, image(1, PatientID="", StationName="Amstelrijk"), b"x" * 5), "cxr"
    )
    described = [intake.quarantine.describe(file.id)[1] for file in intake.quarantine.files()]
    first, second = described
    assert (first.modality, first.rows, first.columns) == ("DX", 2, 3)
    assert first.sop_class_uid.startswith("1.2.840.10008.")
    assert (second.size_bytes, second.sop_class_uid, second.modality) == (5, "", "")
    assert not [word for word in CANARIES if word in repr(described)]


def test_a_picture_is_a_picture_and_asking_for_it_is_audited(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    wide = image(1, PatientID="", Rows=4, Columns=1600, PixelData=bytes(4 * 1600 * 2))
    intake.import_folder(folder_of(tmp_path, wide, b"no DICOM"), "cxr")
    picture, nothing = intake.quarantine.files()
    png = intake.quarantine.thumbnail(picture.id, REVIEW)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    columns, rows = struct.unpack("!II", png[16:24])
    assert (columns, rows) == (400, 1)
    (length,) = struct.unpack("!I", png[33:37])
    assert len(zlib.decompress(png[41 : 41 + length])) == rows * (columns + 1)
    with pytest.raises(RefusedError) as refused:
        intake.quarantine.thumbnail(nothing.id, REVIEW)
    assert refused.value.code == "QUARANTINE_NO_PICTURE"
    assert audited(paths, b"intake.quarantine.shown") == 2


def test_released_after_review_it_is_handed_over(intake: Intake, paths: IntakePaths, tmp_path: Path) -> None:
    file_id = conflict(intake, tmp_path)
    (before,) = live_instances(paths).values()
    intake.quarantine.release(file_id, REVIEW)
    (after,) = live_instances(paths).values()
    assert after.file != before.file
    assert after.sop_instance_uid == before.sop_instance_uid
    assert after.acquisition.pixels == "not-inspected"
    assert intake.quarantine.files() == []
    assert not [path for path in paths.quarantine.rglob("*") if path.is_file()]
    report = intake.batches()[-1]
    assert (report.accepted, report.done, report.quarantined) == (1, 1, {})
    assert audited(paths, b"intake.quarantine.released") == 1
    with pytest.raises(NotFoundError):
        intake.quarantine.release(file_id, REVIEW)


def test_discarded_it_is_gone_and_counted(intake: Intake, paths: IntakePaths, tmp_path: Path) -> None:
    file_id = conflict(intake, tmp_path)
    intake.quarantine.discard(file_id, REVIEW)
    assert not [path for path in paths.quarantine.rglob("*") if path.is_file()]
    report = intake.batches()[-1]
    assert (report.accepted, report.discarded, report.done, report.quarantined) == (0, 1, 1, {})
    assert audited(paths, b"intake.quarantine.discarded") == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"no DICOM", "not-dicom"),
        (image(1, PatientID=""), "patient-id-missing"),
        (image(1, PixelData=None), "pixels-missing"),
        (image(1) + bytes(1 << 20), "too-large"),
    ],
)
def test_a_fault_of_the_file_itself_cannot_be_reviewed_away(
    intake: Intake, paths: IntakePaths, tmp_path: Path, data: bytes, code: str
) -> None:
    intake.import_folder(folder_of(tmp_path, data), "cxr")
    (file,) = intake.quarantine.files(code)
    with pytest.raises(RefusedError, match=code):
        intake.quarantine.release(file.id, REVIEW)
    assert intake.quarantine.counts() == {code: 1}
    assert live_instances(paths) == {}


@pytest.mark.parametrize(
    "file_id", ["", "..", "../keys/pseudonym.key", "20261122T000000-00000000-0000000", "a-b", "%2e"]
)
def test_a_file_that_is_not_there_is_not_found(intake: Intake, file_id: str) -> None:
    for use in (intake.quarantine.describe, lambda name: intake.quarantine.discard(name, REVIEW)):
        with pytest.raises(NotFoundError):
            use(file_id)


@pytest.mark.parametrize(("operator", "reason"), [("", "because"), ("steward", " "), ("x" * 65, "because")])
def test_nobody_decides_without_a_name_and_a_reason(operator: str, reason: str) -> None:
    with pytest.raises(UsageError):
        Review(operator, reason)


def test_what_a_crash_left_after_a_decision_is_tidied_up(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    file_id = conflict(intake, tmp_path)
    (path,) = [path for path in paths.quarantine.rglob("*") if path.is_file()]
    kept = path.read_bytes()
    intake.quarantine.release(file_id, REVIEW)
    path.write_bytes(kept)
    (path.parent / "of-somebody-else").write_bytes(b"")
    assert intake.quarantine.tidy() == 1
    assert not path.exists()
    assert (path.parent / "of-somebody-else").exists()


def audited(paths: IntakePaths, event: bytes) -> int:
    database = open_database(paths.database, MIGRATIONS)
    with database.read() as session:
        bodies = list(session.scalars(select(IntakeAuditRow.body)))
    database.close()
    found = [body for body in bodies if event in body]
    assert all(b'"operator":"steward"' in body for body in found)
    return len(found)
