"""Attack: a train looks for data beside its own cohort, and asks to be given another folder of the host."""

from pathlib import Path

import pytest
from sandbox_kit import Station

from policies.errors import RefusedError
from policies.refusals import RefusalCode

pytestmark = pytest.mark.docker

CODE = """
import os
names = []
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys")]
    names += [os.path.join(folder, name) for name in files if name in ("datalist.json", "patient.nii")]
found = {"names": names, "escaped": os.path.exists("/train/data/../../run-other"), "seen": os.listdir("/train/data/..")}
"""


def test_a_train_sees_its_own_cohort_only(station: Station) -> None:
    other = station.home / "compute" / "cohorts" / "run-other"
    other.mkdir()
    (other / "patient.nii").write_bytes(b"x")
    with station.session() as session:
        found = station.find(session, CODE)
    assert found == {
        "names": ["/train/data/datalist.json"],
        "escaped": False,
        "seen": ["control", "data", "scratch"],
    }


@pytest.mark.parametrize("which", ["root", "all", "dotdot", "linked", "missing", "file", "control"])
def test_the_launcher_mounts_no_other_folder(station: Station, which: str) -> None:
    cohorts = station.home / "compute" / "cohorts"
    (cohorts / "plain").mkdir(exist_ok=True)
    if not (cohorts / "linked").is_symlink():
        (cohorts / "linked").symlink_to("/etc")
        (cohorts / "file").write_text("x")
    given = {
        "root": "/",
        "all": str(cohorts),
        "dotdot": f"{cohorts}/plain/../../layers",
        "linked": str(cohorts / "linked"),
        "missing": str(cohorts / "missing"),
        "file": str(cohorts / "file"),
        "control": str(station.home / "compute" / "control"),
    }[which]
    spec = station.spec(cohort_dir=given)
    Path(spec.control_dir).mkdir(parents=True)
    with pytest.raises(RefusedError) as caught:
        station.launcher.start(spec)
    assert caught.value.code == RefusalCode.SANDBOX_ARGUMENT
    Path(spec.control_dir).rmdir()
