"""What a data steward types wrong, or is given broken: a clear message, a documented exit code, nothing half done."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from station_programs import Installed, open_folder

from policies.errors import ExitCode
from train_images.phantoms import generate_hospitals

COLLECTION = "thorax-cxr"


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("radiographs")
    generate_hospitals(out, hospitals=1, patients=8, seed=5)
    return out / "hospital-a"


@pytest.fixture
def serving(station: Installed) -> Installed:
    station.serve()
    return station


def mixed(radiographs: Path, folder: Path) -> int:
    """Three good radiographs, one cut short, one text under a DICOM name; returns the good ones."""
    folder.mkdir()
    good = sorted((radiographs / "dicom").glob("*.dcm"))[:4]
    for path in good[:3]:
        shutil.copy(path, folder)
    (folder / "cut.dcm").write_bytes(good[3].read_bytes()[:2000])
    (folder / "letter.dcm").write_text("Dear colleague, Mr Jansen ...")
    return 3


def test_unreadable_files_are_quarantined_and_cost_only_themselves(
    serving: Installed, radiographs: Path, tmp_path: Path
) -> None:
    good = mixed(radiographs, tmp_path / "mixed")
    report = serving.ask("ingest", tmp_path / "mixed", "--collection", COLLECTION)
    assert report["handed_over"] == good
    assert sum(report["quarantined"].values()) == 2
    again = serving.ask("ingest", tmp_path / "mixed", "--collection", COLLECTION)
    assert again["handed_over"] == 0
    assert "Jansen" not in json.dumps([report, again])
    logs = "".join(path.read_text() for path in (serving.home / "logs").glob("*.log"))
    assert "Jansen" not in logs


@pytest.mark.parametrize(
    ("command", "text", "names"),
    [
        (("consent", "import"), "patient_id,decision,date\n1,consent,2020-11-05\n", "purpose"),
        (
            ("consent", "import"),
            "patient_id,decision,purpose,date\nnumber 777,maybe,research-participants,2020-11-05\n",
            "line 2",
        ),
        (("clinical", "import"), "patient_id,accession\nnumber 777,A1\n", "pneumonia"),
    ],
)
def test_a_table_that_is_not_right_is_refused_whole(
    serving: Installed, tmp_path: Path, command: tuple[str, ...], text: str, names: str
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(text)
    more = ("--collection", COLLECTION) if command[0] == "clinical" else ()
    error = serving.run(*command, table, *more, expect=int(ExitCode.DATA))
    assert names in error
    assert "number 777" not in error
    assert serving.ask("status")["consent_sequence"] is None


def test_a_collection_that_is_not_offered_is_refused(serving: Installed, radiographs: Path) -> None:
    command = ("ingest", radiographs / "dicom", "--collection", "thorax-cxrs")
    error = serving.run(*command, "--json", expect=int(ExitCode.USAGE))
    assert "no such collection" in error
    assert serving.ask("catalogue") == []


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=755", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_takes_nothing_in_and_says_so(radiographs: Path) -> None:
    with open_folder() as folder, small_disk(folder / "disk", 12):
        station = Installed.make(folder / "disk")
        try:
            station.serve()
            source = folder / "much"
            source.mkdir()
            first = next((radiographs / "dicom").glob("*.dcm")).read_bytes()
            for number in range(300):
                (source / f"{number}.dcm").write_bytes(first)
            error = station.run("ingest", source, "--collection", COLLECTION, expect=int(ExitCode.STORAGE))
            assert "disk" in error
            assert not list((station.home / "intake" / "spool").iterdir())
            assert station.ask("catalogue") == []
        finally:
            station.close()
