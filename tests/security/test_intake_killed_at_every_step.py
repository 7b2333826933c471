"""SIGKILL of intake before and after each of its steps: nothing lost, nothing doubled, nothing half (I8)."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from intake_killed import ACTIONS, SETTINGS
from intake_kit import contents, folder_of, image, live_instances, uid

from policies.refusals import Permitted
from station.handover import InstancesContent
from station.intake import audit
from station.intake.installation import MIGRATIONS, init_intake
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.storage.database import open_database

TESTS = Path(__file__).resolve().parents[1]
DEADLINE_S = 120
FILES = (
    image(1), image(2), image(3, study=2000), b"no DICOM", image(4, "9252896", 3000), image(5, "1", 4000),
    image(6, "2", 4000),
)  # fmt: skip

INGEST = (
    ("station.intake.spool:IncomingBatch.copy", 3), ("station.intake.spool:_finish", 1),
    ("station.intake.batches:start_batch", 1), ("station.intake.workers.pool:start_worker", 1),
    ("station.intake.recording:record_outcome", 1), ("station.intake.recording:record_outcome", 4),
    ("station.intake.recording:record_outcome", 7), ("station.intake.outbox:flush", 2),
    ("station.intake.processing:leave_spool", 1), ("pathlib:Path.replace", 3),
    ("station.intake.batches:finish_batch", 1), ("station.handover:HandoverLog.append", 1),
    ("station.intake.spool:remove_batch", 1),
)  # fmt: skip
REMOVE = (
    ("station.intake.removals:take_out", 1), ("station.intake.outbox:flush", 2),
    ("station.handover:HandoverLog.append", 1),
)  # fmt: skip
RELEASE = (
    ("station.intake.workers.pool:WorkerPool.one", 1), ("station.intake.recording:remember", 1),
    ("station.intake.outbox:flush", 2), ("station.intake.quarantine:remove_durably", 1),
)  # fmt: skip
MERGE = (
    ("station.intake.merges.register:_move", 1), ("station.intake.outbox:flush", 2),
    ("station.handover:HandoverLog.append", 1), ("station.intake.workforce:Workforce.renew", 1),
)  # fmt: skip


@pytest.fixture
def paths(tmp_path: Path) -> IntakePaths:
    return init_intake(tmp_path / "home")


def killed(paths: IntakePaths, source: Path, action: str, step: str, nth: int, moment: str) -> None:
    """Do it in a process that is killed there."""
    environment = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    ended = subprocess.run(
        [
            sys.executable,
            str(TESTS / "intake_killed.py"),
            str(paths.home),
            str(source),
            action,
            step,
            str(nth),
            moment,
        ],
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
        env=environment,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]


def done_again(paths: IntakePaths, source: Path, action: str) -> Intake:
    """Do it again as the service would, and hand the intake back open."""
    intake = Intake(paths, SETTINGS)
    ACTIONS[action](intake, source)
    return intake


def sound(paths: IntakePaths) -> None:
    """What must hold whatever happened: an unbroken audit, each instance handed over once, nothing in the spool."""
    database = open_database(paths.database, MIGRATIONS)
    assert isinstance(audit.verify(database), Permitted)
    database.close()
    assert list(paths.spool.iterdir()) == []
    live_instances(paths)


def handed_over(paths: IntakePaths) -> Counter[str]:
    found = [content for content in contents(paths) if isinstance(content, InstancesContent)]
    return Counter(record.sop_instance_uid for content in found for record in content.instances)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("step", "nth"), INGEST)
def test_killed_while_ingesting(paths: IntakePaths, tmp_path: Path, step: str, nth: int, moment: str) -> None:
    source = folder_of(tmp_path, *FILES)
    killed(paths, source, "ingest", step, nth, moment)
    with done_again(paths, source, "ingest") as intake:
        (report,) = intake.batches()
        assert (report.accepted, report.duplicates) == (4, 0)
        assert report.quarantined == {"not-dicom": 1, "study-patient-mismatch": 2}
        assert report.finished_at is not None
        assert intake.recover() == []
    assert set(handed_over(paths).values()) == {1}
    assert len(live_instances(paths)) == 4
    held = Counter(path.parent.name for path in paths.quarantine.rglob("*") if path.is_file())
    assert held == {"not-dicom": 1, "study-patient-mismatch": 2}
    sound(paths)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("step", "nth"), REMOVE)
def test_killed_while_removing(paths: IntakePaths, tmp_path: Path, step: str, nth: int, moment: str) -> None:
    source = folder_of(tmp_path, *FILES)
    with done_again(paths, source, "ingest"):
        pass
    killed(paths, source, "remove", step, nth, moment)
    with done_again(paths, source, "remove") as intake:
        gone = {intake.remap_uid(uid(1)), intake.remap_uid(uid(2))}
        assert intake.status().instances == 2
    assert len(live_instances(paths)) == 2
    assert not gone & {record.sop_instance_uid for record in live_instances(paths).values()}
    sound(paths)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("step", "nth"), RELEASE)
def test_killed_while_releasing(paths: IntakePaths, tmp_path: Path, step: str, nth: int, moment: str) -> None:
    source = folder_of(tmp_path, image(1))
    with done_again(paths, source, "ingest") as intake:
        intake.import_folder(folder_of(tmp_path, image(1, PixelData=bytes(12))), "cxr")
    killed(paths, source, "release", step, nth, moment)
    with done_again(paths, source, "release") as intake:
        assert intake.quarantine.files() == []
        assert intake.status().instances == 1
    # The first of them, and its replacement: once each.
    assert sum(handed_over(paths).values()) == 2
    assert not [path for path in paths.quarantine.rglob("*") if path.is_file()]
    sound(paths)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("step", "nth"), MERGE)
def test_killed_while_merging(paths: IntakePaths, tmp_path: Path, step: str, nth: int, moment: str) -> None:
    source = folder_of(tmp_path, *FILES)
    with done_again(paths, source, "ingest"):
        pass
    killed(paths, source, "merge", step, nth, moment)
    with done_again(paths, source, "merge") as intake:
        # The merged one, and the first whom the disputed study was thought to be of.
        assert intake.status().patients == 2
    assert len({record.patient for record in live_instances(paths).values()}) == 1
    sound(paths)
