"""Terms: what is over its term goes, once, counted in the audit; what is not, stays."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from intake_kit import folder_of, image, live_instances, uid
from sqlalchemy import select

from station.handover import instance_path
from station.intake import spool
from station.intake.installation import MIGRATIONS, init_intake
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.intake.quarantine import Review
from station.intake.retention import Swept
from station.intake.schema import IntakeAuditRow
from station.intake.settings import IntakeRetention, IntakeSettings
from station.intake.sources.folder import stage_folder
from station.pseudonymisation.pixels.settings import PixelSettings
from station.storage.database import open_database

TERMS = IntakeRetention(
    quarantine=timedelta(days=30),
    unclaimed=timedelta(days=7),
    removed=timedelta(hours=12),
    backups=timedelta(days=60),
)
SETTINGS = IntakeSettings(retention=TERMS, pixels=PixelSettings(inspect="off"))


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def paths(tmp_path: Path) -> IntakePaths:
    return init_intake(tmp_path / "home")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def swept_in_audit(paths: IntakePaths) -> int:
    database = open_database(paths.database, MIGRATIONS)
    with database.read() as session:
        bodies = list(session.scalars(select(IntakeAuditRow.body)))
    database.close()
    return sum(b"intake.retention.enforced" in body for body in bodies)


def test_quarantine_has_a_term(paths: IntakePaths, clock: Clock, tmp_path: Path) -> None:
    with Intake(paths, SETTINGS, clock=clock) as intake:
        intake.import_folder(folder_of(tmp_path, b"no DICOM"), "cxr")
        clock.now += timedelta(days=29)
        intake.import_folder(folder_of(tmp_path, b"nor this"), "cxr")
        assert intake.retention.sweep() == Swept()
        clock.now += timedelta(days=1, minutes=1)
        assert intake.retention.sweep() == Swept(quarantined=1)
        assert len(files(paths.quarantine)) == 1
        assert intake.quarantine.counts() == {"not-dicom": 1}
        assert [report.discarded for report in intake.batches()] == [1, 0]
        assert intake.retention.sweep() == Swept()
    assert swept_in_audit(paths) == 1


def test_the_file_of_a_removed_instance_stays_until_compute_could_take_note(
    paths: IntakePaths, clock: Clock, tmp_path: Path
) -> None:
    with Intake(paths, SETTINGS, clock=clock) as intake:
        intake.import_folder(folder_of(tmp_path, image(1), image(2)), "cxr")
        held = live_instances(paths)
        gone = held["cxr", intake.remap_uid(uid(1))]
        intake.remove_instances([uid(1)], "rejected")
        clock.now += timedelta(hours=11)
        assert intake.retention.sweep() == Swept()
        assert instance_path(paths.handover, gone.file).exists()
        clock.now += timedelta(hours=1)
        assert intake.retention.sweep() == Swept(removed_instances=1)
        assert not instance_path(paths.handover, gone.file).exists()
        assert len(files(paths.handover / "instances")) == 1
        # That it was removed is not forgotten with its file.
        again = intake.import_folder(folder_of(tmp_path, image(1)), "cxr")
        assert again.quarantined == {"instance-removed": 1}


def test_a_file_that_another_instance_names_stays(paths: IntakePaths, clock: Clock, tmp_path: Path) -> None:
    with Intake(paths, SETTINGS, clock=clock) as intake:
        intake.import_folder(folder_of(tmp_path, image(1)), "cxr")
        intake.remove_instances([uid(1)], "rejected")
        intake.import_folder(folder_of(tmp_path, image(1)), "cxr")
        (waiting,) = intake.quarantine.files()
        intake.quarantine.release(waiting.id, Review("steward", "it is sound"))
        clock.now += timedelta(days=1)
        assert intake.retention.sweep() == Swept()
    assert len(live_instances(paths)) == 1


def test_a_batch_that_nobody_claims_has_a_term(paths: IntakePaths, clock: Clock, tmp_path: Path) -> None:
    claimed = stage_folder(paths.spool, folder_of(tmp_path, image(1)))
    stage_folder(paths.spool, folder_of(tmp_path, image(2)))
    with Intake(paths, SETTINGS, clock=clock) as intake:
        intake.accept_batch(claimed.name, "cxr")
        clock.now += timedelta(days=6)
        assert intake.retention.sweep() == Swept()
        clock.now += timedelta(days=2)
        assert intake.retention.sweep() == Swept(unclaimed_batches=1)
    assert [batch.name for batch in spool.batches(paths.spool)] == [claimed.name]


def test_backups_and_half_written_files_go(paths: IntakePaths, clock: Clock) -> None:
    paths.backups.mkdir()
    (paths.backups / "intake.db").write_bytes(b"copy")
    folder = paths.handover / "instances" / "aa"
    folder.mkdir()
    old, new = folder / ".aa.dcm.x1", folder / ".aa.dcm.x2"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    with Intake(paths, SETTINGS, clock=clock) as intake:
        clock.now += timedelta(days=59)
        assert intake.retention.sweep() == Swept(half_written=1)
        assert files(folder) == [new]
        clock.now += timedelta(days=2)
        assert intake.retention.sweep() == Swept(backups=1)
    assert files(paths.backups) == []


def test_a_copy_that_is_damaged_before_its_original_goes_is_made_again(
    paths: IntakePaths, tmp_path: Path
) -> None:
    with Intake(paths, SETTINGS) as intake:
        intake.import_folder(folder_of(tmp_path, image(1)), "cxr")
        (path,) = files(paths.handover / "instances")
        sound = path.read_bytes()
        path.write_bytes(sound[:-2] + b"xx")
        assert intake.import_folder(folder_of(tmp_path, image(1)), "cxr").duplicates == 1
    assert path.read_bytes() == sound
