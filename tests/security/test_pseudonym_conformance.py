"""dciodvfy before and after: pseudonymisation brings no new error into a file that came from a device or a phantom."""

import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pseudonym_files import fixed_key

from station.pseudonymisation import DeidentificationOptions, Option, Pseudonymiser
from station.pseudonymisation.reading import read_dicom
from train_images.phantoms import generate_hospitals, write_ct_series
from train_images.phantoms.people import make_people

DCIODVFY = "/usr/bin/dciodvfy"
_TIMEOUT_S = 300


def errors(path: Path) -> Counter[str]:
    """The errors of a file, word for word."""
    run = subprocess.run(
        [DCIODVFY, str(path)],
        capture_output=True,
        timeout=_TIMEOUT_S,
        check=False,
        errors="replace",
        text=True,
    )
    lines = (run.stderr + run.stdout).splitlines()
    return Counter(line for line in lines if line.startswith("Error"))


def new_errors(files: list[Path], engine: Pseudonymiser, folder: Path) -> dict[str, list[str]]:
    def compare(numbered: tuple[int, Path]) -> tuple[str, list[str]]:
        number, path = numbered
        after = folder / f"{number}.dcm"
        after.write_bytes(engine.pseudonymise(read_dicom(path.read_bytes())).encode())
        return path.name, list((errors(after) - errors(path)).elements())

    with ThreadPoolExecutor(2) as pool:
        return {name: found for name, found in pool.map(compare, enumerate(files)) if found}


@pytest.fixture(params=["default", "none", "all"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Pseudonymiser:
    chosen = {"default": (Option.MODIFIED_DATES,), "none": (), "all": tuple(Option)}[request.param]
    return Pseudonymiser(fixed_key(tmp_path), "registry", options=DeidentificationOptions(chosen=chosen))


def test_no_new_error_in_real_files(shared_data: Path, engine: Pseudonymiser, tmp_path: Path) -> None:
    """CT of one maker and the radiographs of three hospitals: uncompressed, JPEG 2000 and JPEG-LS."""
    files = [*sorted(shared_data.glob("ct/lung*/*.dcm"))[::5]]
    for hospital in ("a", "b", "c"):
        files += sorted(shared_data.glob(f"cxr/hospital-{hospital}/dicom/*.dcm"))[::7]
    assert len(files) >= 44
    assert new_errors(files, engine, tmp_path) == {}


def test_no_new_error_in_generated_phantoms(engine: Pseudonymiser, tmp_path: Path) -> None:
    generate_hospitals(tmp_path / "x-ray", hospitals=3, patients=2, size_px=64)
    person = make_people(np.random.default_rng(7), count=1, prevalence=1.0, letter="A")[0]
    series = write_ct_series(tmp_path / "ct", person=person, study=person.studies[0], seed=7)
    files = [*sorted(tmp_path.glob("x-ray/*/dicom/*.dcm")), *series.files[::6]]
    assert len(files) >= 10
    assert new_errors(files, engine, tmp_path) == {}


def test_an_error_that_is_made_is_found(shared_data: Path, tmp_path: Path) -> None:
    path = min(shared_data.glob("ct/lung*/*.dcm"))
    dataset = read_dicom(path.read_bytes())
    del dataset.Rows
    broken = tmp_path / "broken.dcm"
    dataset.save_as(broken)
    assert errors(broken) - errors(path)
