"""`pht-station clinical` and `labels`, typed as an operator types them, against intake's API on its own socket."""

import gzip
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from clinical_kit import CT_PATIENT, CT_STUDY, affine_of, castor, ct_series, nifti, two_labels

from policies.console import run
from policies.errors import ExitCode
from station.cli import app
from station.handover import LabelsContent, load_public_key, read_handover
from station.intake.api import create_api
from station.intake.clinical.mapping import shipped_mapping, shipped_mappings
from station.intake.installation import init_intake
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.intake.settings import IntakeSettings
from station.web.server import listening, read_token
from train_images.phantoms import PhantomSeries

PLAIN = "patient_id,accession,pneumonia,sex,birth_date,temperature_c,crp_mg_l,smoker\n"
Type = Callable[..., tuple[int, str]]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    # A Unix socket's name is short.
    with tempfile.TemporaryDirectory(prefix="pht-") as name:
        yield Path(name) / "home"


@pytest.fixture(scope="module")
def series(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhantomSeries]:
    """A CT series, taken in by an intake that answers on its socket while the tests run."""
    paths = init_intake(home)
    (home / "station.toml").touch()
    made = ct_series(tmp_path_factory.mktemp("ct"))
    with Intake(paths, IntakeSettings(workers=1)) as intake:
        intake.import_folder(made.files[0].parent, "ct")
        served = create_api(intake, read_token(paths.token), lambda _name: None)
        server = uvicorn.Server(
            uvicorn.Config(served, log_config=None, access_log=False, lifespan="off", ws="none")
        )
        with listening(paths.socket) as listener:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            yield made
            server.should_exit = True
            thread.join()


@pytest.fixture
def typed(home: Path, series: PhantomSeries) -> Type:
    def type_in(*words: object) -> tuple[int, str]:
        line = [
            sys.executable,
            "-c",
            "from station.cli import main; main()",
            *map(str, words),
            "--home",
            str(home),
        ]
        ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        return ended.returncode, ended.stdout + ended.stderr

    return type_in


def test_an_export_is_tried_imported_and_its_history_shown(typed: Type, tmp_path: Path) -> None:
    mapping, export = tmp_path / "castor.yaml", tmp_path / "export.csv"
    mapping.write_bytes(shipped_mapping("castor-ncif-covid-1"))
    row = {"pat_number": CT_PATIENT.patient_id, "study_accession": CT_STUDY.accession}
    export.write_bytes(castor({**row, "adm_sat": "99173.25"}))
    words = ("clinical", "import", export, "--collection", "ct", "--mapping", mapping)
    code, said = typed(*words, "--dry-run")
    assert (code, "column adm_sat: is not in the field's range" in said) == (ExitCode.DATA, True)
    code, said = typed(*words)
    assert code == ExitCode.DATA
    assert "line 2, column adm_sat" in said
    assert "99173.25" not in said
    export.write_bytes(castor(row))
    code, said = typed(*words, "--dry-run", "--json")
    assert (code, json.loads(said)["refused"]) == (ExitCode.OK, 0)
    code, said = typed(*words, "--json")
    report = json.loads(said)
    assert (code, report["added"], report["linked"], report["handed_over"]) == (0, 1, 1, 1)
    export.write_bytes(castor({**row, "adm_sat": "93"}))
    code, said = typed(*words)
    assert code == 0
    assert "corrected" in said
    code, said = typed("clinical", "history", "--patient", CT_PATIENT.patient_id)
    assert code == 0
    assert "saturation_percent: 91.0 -> 93.0" in said
    assert typed("clinical", "history", "--patient", "nobody")[0] == ExitCode.NOT_FOUND
    code, said = typed("clinical", "mappings")
    assert (code, "castor-ncif-covid-1" in said) == (0, True)


def test_the_examples_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["clinical", "example"]) == 0
    assert capsys.readouterr().out.split() == list(shipped_mappings())
    assert run(app, ["clinical", "example", "openclinica-thorax-1"]) == 0
    assert capsys.readouterr().out.encode().strip() == shipped_mapping("openclinica-thorax-1").strip()
    assert run(app, ["clinical", "example", "nothing"]) == ExitCode.NOT_FOUND


def test_masks_are_tried_and_imported(typed: Type, home: Path, series: PhantomSeries, tmp_path: Path) -> None:
    folder, table = tmp_path / "masks", tmp_path / "labels.csv"
    folder.mkdir()
    (folder / "1.nii.gz").write_bytes(gzip.compress(nifti(two_labels(series), affine_of(series))))
    line = f"1.nii.gz,{CT_PATIENT.patient_id},{CT_STUDY.accession},"
    words = ("labels", "import", folder, "--mapping", table, "--collection", "ct")
    table.write_text(f"file,patient_id,accession,names\n{line}lung\n")
    code, said = typed(*words, "--dry-run")
    assert (code, "line 2: holds a value that has no name" in said) == (ExitCode.DATA, True)
    code, said = typed(*words)
    assert (code, "No mask was taken" in said) == (ExitCode.DATA, True)
    table.write_text(f"file,patient_id,accession,names\n{line}lung nodule\n")
    code, said = typed(*words, "--json")
    assert (code, json.loads(said)["handed_over"]) == (0, 1)
    code, said = typed(*words, "--json")
    assert (code, json.loads(said)["unchanged"]) == (0, 1)
    paths = IntakePaths(home)
    entries = read_handover(paths.handover, load_public_key(paths.handover_public_key))
    (content,) = [entry.content for entry in entries if isinstance(entry.content, LabelsContent)]
    assert content.labels[0].names == ("lung", "nodule")
    assert typed("labels", "status")[1].startswith("1 masks handed over.")


def test_a_link_is_not_followed(typed: Type, tmp_path: Path) -> None:
    (tmp_path / "1.nii").symlink_to("/etc/hostname")
    table = tmp_path / "labels.csv"
    table.write_text("file,patient_id,accession,names\n1.nii,1,A,lung\n")
    words = ("labels", "import", tmp_path, "--mapping", table, "--collection", "ct")
    code, said = typed(*words)
    assert (code, "1 of 1 files are not in the folder" in said) == (ExitCode.DATA, True)
    table.write_text("file,patient_id,accession,names\n../1.nii,1,A,lung\n")
    code, said = typed(*words)
    assert (code, "line 2, column file: is not a plain file name" in said) == (ExitCode.DATA, True)
