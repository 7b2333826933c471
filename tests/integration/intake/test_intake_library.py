"""Intake as a library: files in, a verified handover out, and everything in between that can go wrong."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from intake_kit import fixed_intake, folder_of, image, uid

from policies.errors import DataError, NotFoundError, StateError, UsageError
from policies.refusals import Permitted
from station.handover import (
    ClinicalContent,
    ConsentContent,
    InstanceRecord,
    InstancesContent,
    VerifiedEntry,
    load_public_key,
    read_handover,
    read_instance,
)
from station.intake import audit
from station.intake.csv_reader import CsvError
from station.intake.installation import init_intake
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.intake.settings import IntakeSettings
from station.pseudonymisation.pixels.settings import PixelSettings
from station.storage.database import open_database

CONSENT = b"patient_id,decision,purpose,date\n"
ECRF = b"patient_id,accession,pneumonia,sex,birth_date,temperature_c,crp_mg_l,smoker\n"


@pytest.fixture
def paths(tmp_path: Path) -> IntakePaths:
    return fixed_intake(tmp_path / "home")


@pytest.fixture
def intake(paths: IntakePaths) -> Iterator[Intake]:
    with Intake(paths) as opened:
        yield opened


def entries(paths: IntakePaths) -> list[VerifiedEntry]:
    return list(read_handover(paths.handover, load_public_key(paths.handover_public_key)))


def instances(paths: IntakePaths) -> list[InstanceRecord]:
    found = [entry.content for entry in entries(paths) if isinstance(entry.content, InstancesContent)]
    return [record for content in found for record in content.instances]


def consents(paths: IntakePaths) -> list[ConsentContent]:
    return [entry.content for entry in entries(paths) if isinstance(entry.content, ConsentContent)]


def clinical(paths: IntakePaths) -> list[ClinicalContent]:
    return [entry.content for entry in entries(paths) if isinstance(entry.content, ClinicalContent)]


def identified_words() -> tuple[bytes, ...]:
    return b"estpatient", b"3748755", b"A1000", b"Amstelrijk", uid(1000).encode()


def test_folders_and_files_are_closed_to_others(paths: IntakePaths) -> None:
    assert paths.root.stat().st_mode & 0o777 == 0o700
    assert paths.handover.stat().st_mode & 0o007 == 0
    for secret in (paths.pseudonym_key, paths.handover_key, paths.token):
        assert secret.stat().st_mode & 0o777 == 0o600
    keys = paths.pseudonym_key.read_bytes(), paths.handover_key.read_bytes(), paths.token.read_bytes()
    init_intake(paths.home)
    assert keys == (
        paths.pseudonym_key.read_bytes(),
        paths.handover_key.read_bytes(),
        paths.token.read_bytes(),
    )


def test_images_are_handed_over_under_pseudonyms_only(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    report = intake.import_folder(
        folder_of(tmp_path, image(1), image(2), image(3, "9252896", 2000)),
        "cxr",
        lambda done, of: seen.append((done, of)),
    )
    assert (report.accepted, report.duplicates, report.quarantined) == (3, 0, {})
    assert seen == [(1, 3), (2, 3), (3, 3)]
    records = instances(paths)
    assert len(records) == 3
    assert {record.collection for record in records} == {"cxr"}
    assert {(record.modality, record.body_part, record.view_position) for record in records} == {
        ("DX", "CHEST", "PA")
    }
    assert len({record.patient for record in records}) == 2
    assert len({record.study_uid for record in records}) == 2
    for record in records:
        assert not [word for word in identified_words() if word in read_instance(paths.handover, record)]
    for path in paths.handover.rglob("*"):
        assert not [word for word in identified_words() if path.is_file() and word in path.read_bytes()]
    assert list(paths.spool.iterdir()) == []


def test_compute_can_read_the_handover_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        paths = init_intake(tmp_path / "home")
        with Intake(paths) as intake:
            intake.import_folder(folder_of(tmp_path, image(1)), "cxr")
    finally:
        os.umask(before)
    for path in (paths.handover, *paths.handover.rglob("[!.]*")):
        wanted = 0o050 if path.is_dir() else 0o040
        assert path.stat().st_mode & wanted == wanted, path.relative_to(paths.handover)
        assert path == paths.handover_public_key or path.stat().st_mode & 0o007 == 0


def test_again_doubles_nothing(intake: Intake, paths: IntakePaths, tmp_path: Path) -> None:
    source = folder_of(tmp_path, image(1), image(2))
    intake.import_folder(source, "cxr")
    before = entries(paths)
    again = intake.import_folder(source, "cxr")
    assert (again.accepted, again.duplicates) == (0, 2)
    assert entries(paths) == before
    assert intake.status().instances == 2


def test_a_later_study_of_a_patient_gets_the_same_pseudonym(paths: IntakePaths, tmp_path: Path) -> None:
    for study in (1000, 2000):
        with Intake(paths) as intake:
            intake.import_folder(folder_of(tmp_path, image(study, study=study)), "cxr")
    assert len({record.patient for record in instances(paths)}) == 1
    assert len({record.study_uid for record in instances(paths)}) == 2


def test_an_image_that_names_no_body_part_gets_its_collection_s(paths: IntakePaths, tmp_path: Path) -> None:
    settings = IntakeSettings(pixels=PixelSettings(inspect="off"), body_parts={"ct": "CHEST"})
    for collection in ("ct", "others"):
        with Intake(paths, settings) as intake:
            files = image(1, BodyPartExamined=""), image(2, BodyPartExamined="ABDOMEN")
            intake.import_folder(folder_of(tmp_path, *files), collection)
    parts = {(record.collection, record.body_part) for record in instances(paths)}
    assert parts == {("ct", "CHEST"), ("ct", "ABDOMEN"), ("others", ""), ("others", "ABDOMEN")}


def test_what_cannot_be_taken_up_waits_in_quarantine_with_its_reason(
    intake: Intake, paths: IntakePaths, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    good = image(1)
    broken = good[: len(good) // 2].replace(b"\x20\x00\x0d\x00", b"\x20\x00\x0d\xff")
    report = intake.import_folder(
        folder_of(
            tmp_path,
            good,
            broken,
            b"Testpatient^Eva 3748755, not DICOM",
            image(2, PatientID=""),
            image(3, SOPClassUID="1.2.840.10008.5.1.4.1.1.7"),
            image(4, StudyInstanceUID=""),
        ),
        "cxr",
    )
    assert report.accepted == 1
    assert report.quarantined.pop("not-dicom") == 1
    assert report.quarantined.pop("patient-id-missing") == 1
    assert report.quarantined.pop("sop-class-not-accepted") == 1
    assert sum(report.quarantined.values()) == 2
    held = Counter(path.parent.name for path in paths.quarantine.rglob("*") if path.is_file())
    assert sum(held.values()) == 5
    assert intake.status().quarantined == dict(held)
    assert not [path for path in paths.quarantine.rglob("*") if "dcm" in path.name]
    assert not [word for word in identified_words() if word.decode() in caplog.text]
    assert len(instances(paths)) == 1


def test_a_study_whose_files_disagree_on_the_patient_is_quarantined_whole(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    report = intake.import_folder(
        folder_of(tmp_path, image(1), image(2, "9252896"), image(3), image(4, "1", 2000)), "cxr"
    )
    assert report.accepted == 1
    assert report.quarantined == {"study-patient-mismatch": 3}
    later = intake.import_folder(folder_of(tmp_path, image(5)), "cxr")
    assert later.quarantined == {"study-patient-mismatch": 1}
    assert len(instances(paths)) == 1


def test_a_file_that_disagrees_with_what_is_known_is_quarantined(intake: Intake, tmp_path: Path) -> None:
    intake.import_folder(folder_of(tmp_path, image(1)), "cxr")
    other_patient = intake.import_folder(folder_of(tmp_path, image(2, "9252896")), "cxr")
    assert other_patient.quarantined == {"study-patient-mismatch": 1}


def test_another_content_under_a_known_instance_is_quarantined(intake: Intake, tmp_path: Path) -> None:
    intake.import_folder(folder_of(tmp_path, image(1)), "cxr")
    changed = intake.import_folder(folder_of(tmp_path, image(1, PixelData=bytes(12))), "cxr")
    assert changed.quarantined == {"instance-conflict": 1}


def test_a_file_over_the_limit_is_quarantined_unread(paths: IntakePaths, tmp_path: Path) -> None:
    with Intake(paths, IntakeSettings(max_file_bytes=1 << 20)) as intake:
        report = intake.import_folder(folder_of(tmp_path, image(1) + bytes(1 << 20)), "cxr")
    assert report.quarantined == {"too-large": 1}


def test_consent_is_the_state_of_patients_whose_images_are_here(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    register = (
        CONSENT
        + b"3748755,consent,research-participants,2020-11-05\n99,consent,research-participants,2020-11-05\n"
    )
    assert intake.import_consent(register).handed_over == 0
    intake.import_folder(folder_of(tmp_path, image(1), image(2, "9252896", 2000)), "cxr")
    states = consents(paths)
    assert [state.consent_sequence for state in states] == [1, 2]
    (decided,) = states[-1].records
    assert (decided.decision, decided.purpose, decided.date) == (
        "consent",
        "research-participants",
        "2020-11-05",
    )
    assert decided.patient in {record.patient for record in instances(paths)}
    withdrawn = intake.import_consent(CONSENT + b"3748755,objection,research-participants,2021-01-01\n")
    assert withdrawn.sequence == 3
    assert [record.decision for record in consents(paths)[-1].records] == ["objection"]
    assert states[-1].source_date == states[0].source_date


def test_a_wrong_register_changes_nothing(intake: Intake, paths: IntakePaths, tmp_path: Path) -> None:
    intake.import_folder(folder_of(tmp_path, image(1)), "cxr")
    intake.import_consent(CONSENT + b"3748755,consent,research-participants,2020-11-05\n")
    before = entries(paths)
    bad = tmp_path / "consent.csv"
    bad.write_bytes(
        CONSENT + b"3748755,objection,research-participants,2021-01-01\n9252896,perhaps,x,2021-01-01\n"
    )
    with pytest.raises(CsvError, match="line 3, column decision"):
        intake.import_consent(bad)
    assert entries(paths) == before
    with pytest.raises(NotFoundError):
        intake.import_consent(tmp_path / "absent.csv")


def test_clinical_rows_link_on_patient_and_accession_whichever_comes_first(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    export = (
        ECRF
        + b"3748755,A1000,1,F,1975-11-22,39.2,28.2,yes\n9252896,A2000,0,M,1952-01-18,36.9,3.1,no\n9252896,A1000,1,M,,,,\n"
    )
    first = intake.import_clinical(export, "cxr")
    assert (first.rows, first.linked, first.handed_over) == (3, 0, 0)
    intake.import_folder(folder_of(tmp_path, image(1)), "cxr")
    intake.import_folder(folder_of(tmp_path, image(2, "9252896", 2000)), "cxr")
    rows = [row for content in clinical(paths) for row in content.rows]
    by_patient = {record.patient: record.study_uid for record in instances(paths)}
    assert {row.patient: row.study_uid for row in rows} == by_patient
    assert sorted((row.values["pneumonia"], row.values["age_years"], row.values["smoker"]) for row in rows) == [
        (0, 68, False), (1, 44, True),
    ]  # fmt: skip
    again = intake.import_clinical(export, "cxr")
    assert (again.linked, again.handed_over) == (2, 0)
    corrected = intake.import_clinical(export.replace(b"39.2", b"38.2"), "cxr")
    assert corrected.handed_over == 1
    assert clinical(paths)[-1].rows[0].values["temperature_c"] == 38.2


def test_a_handover_never_holds_an_id_an_accession_or_a_date_of_birth(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    intake.import_folder(folder_of(tmp_path, image(1)), "cxr")
    intake.import_clinical(ECRF + b"3748755,A1000,1,F,1975-11-22,39.2,28.2,yes\n", "cxr")
    intake.import_consent(CONSENT + b"3748755,consent,research-participants,2020-11-05\n")
    shown = "\n".join(entry.content.model_dump_json() for entry in entries(paths))
    # A year stands by chance in digests and in fractions of a second, though not as a word of its own.
    assert not re.search(r"\b1975\b", shown)
    assert not [word for word in ("3748755", "A1000", "19751122", "Testpatient") if word in shown]


def test_many_instances_come_in_several_entries(paths: IntakePaths, tmp_path: Path) -> None:
    with Intake(paths, IntakeSettings(instances_per_entry=2)) as intake:
        intake.import_folder(folder_of(tmp_path, *(image(number) for number in range(1, 6))), "cxr")
    found = [entry.content for entry in entries(paths) if isinstance(entry.content, InstancesContent)]
    assert [len(content.instances) for content in found] == [2, 2, 1]


class StopError(Exception):
    """Stands for the end of a process between two files."""


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_batch_that_was_cut_off_goes_on_where_it_stopped(
    paths: IntakePaths, tmp_path: Path, after: int
) -> None:
    def stop(done: int, _of: int) -> None:
        if done == after:
            raise StopError

    with Intake(paths) as intake, pytest.raises(StopError):
        intake.import_folder(folder_of(tmp_path, image(1), image(2), image(3)), "cxr", stop)
    assert instances(paths) == []
    with Intake(paths) as intake:
        (name,) = intake.recover()
        report = intake.process_batch(name)
        assert (report.files, report.accepted, report.duplicates) == (3, 3, 0)
        assert intake.recover() == []
    assert len(instances(paths)) == 3


def test_a_staged_batch_waits_until_it_is_accepted(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    from station.intake.staging import stage_folder

    name = stage_folder(paths.home, folder_of(tmp_path, image(1)))
    assert intake.recover() == []
    assert intake.status().batches_waiting == 1
    with pytest.raises(NotFoundError):
        intake.process_batch(name)
    intake.accept_batch(name, "cxr")
    assert intake.accept_batch(name, "cxr").files == 1
    with pytest.raises(UsageError):
        intake.accept_batch(name, "ct")
    assert intake.process_batch(name).accepted == 1
    assert intake.process_batch(name).accepted == 1


def test_only_collections_of_the_station_are_taken(paths: IntakePaths, tmp_path: Path) -> None:
    with Intake(paths, IntakeSettings(collections=("cxr",))) as intake:
        with pytest.raises(UsageError):
            intake.import_folder(folder_of(tmp_path, image(1)), "other")
        with pytest.raises(UsageError):
            intake.import_clinical(ECRF + b"1,A,,,,,,\n", "other")
    assert list(paths.spool.iterdir()) == []


def test_two_processes_cannot_work_on_one_intake(intake: Intake, paths: IntakePaths) -> None:
    assert intake.status().instances == 0
    with pytest.raises(StateError, match="another process"):
        Intake(paths)


def test_a_key_that_others_may_read_stops_intake(paths: IntakePaths) -> None:
    for key in (paths.pseudonym_key, paths.handover_key):
        key.chmod(0o644)
        with pytest.raises(StateError, match="others may read"):
            Intake(paths)
        key.chmod(0o600)
    Intake(paths).close()


def test_everything_is_audited_in_a_chain_without_a_patient(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    intake.import_folder(folder_of(tmp_path, image(1)), "cxr")
    intake.import_consent(CONSENT + b"3748755,consent,research-participants,2020-11-05\n")
    intake.import_clinical(ECRF + b"3748755,A1000,1,F,1975-11-22,39.2,28.2,yes\n", "cxr")
    from sqlalchemy import select

    from station.intake.schema import IntakeAuditRow

    database = open_database(paths.database, Path(audit.__file__).parent / "migrations")
    verified = audit.verify(database)
    assert isinstance(verified, Permitted)
    with database.read() as session:
        bodies = b"\n".join(session.scalars(select(IntakeAuditRow.body)))
    database.close()
    happened = (
        audit.IntakeEvent.BATCH_RECEIVED, audit.IntakeEvent.BATCH_FINISHED, audit.IntakeEvent.CONSENT_IMPORTED,
        audit.IntakeEvent.CLINICAL_IMPORTED, audit.IntakeEvent.HANDED_OVER,
    )  # fmt: skip
    for event in happened:
        assert event.value.encode() in bodies
    assert not [word for word in identified_words() if word in bodies]


def test_an_empty_folder_is_an_error(intake: Intake, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        intake.import_folder(folder_of(tmp_path), "cxr")
