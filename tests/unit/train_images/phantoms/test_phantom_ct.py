"""Made-up CT series: what they are when whole, and that each fault is the one it is named for."""

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from train_images.phantoms import CtFault, CtScanner, PhantomSeries, write_ct_series
from train_images.phantoms.people import make_people

PERSON = next(
    person
    for person in make_people(np.random.default_rng(1), count=8, prevalence=0.5, letter="A")
    if person.studies[0].pneumonia
)


def made(folder: Path, fault: CtFault | None = None, scanner: CtScanner | None = None) -> PhantomSeries:
    return write_ct_series(
        folder, person=PERSON, study=PERSON.studies[0], seed=1, fault=fault, scanner=scanner
    )


def heights(series: PhantomSeries) -> list[float]:
    return [float(dcmread(path).ImagePositionPatient[2]) for path in series.files]


@pytest.mark.parametrize(
    "scanner", [CtScanner(), CtScanner(oblique_deg=(10.0, 5.0))], ids=["axial", "oblique"]
)
def test_a_whole_series_is_valid(tmp_path: Path, scanner: CtScanner) -> None:
    for path in made(tmp_path, scanner=scanner).files[::8]:
        judged = subprocess.run(["/usr/bin/dciodvfy", str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in judged.stdout + judged.stderr
        assert "CTImage" in judged.stdout + judged.stderr


def test_files_say_nothing_of_the_order_and_stored_values_are_the_anatomy(tmp_path: Path) -> None:
    series = made(tmp_path)
    assert list(series.files) != sorted(series.files)
    assert heights(series) == sorted(heights(series))
    for path, plane in zip(series.files, series.hounsfield, strict=True):
        dataset: Dataset = dcmread(path)
        stored = dataset.pixel_array.astype(int) * int(dataset.RescaleSlope) + int(dataset.RescaleIntercept)
        assert np.array_equal(stored, plane)
    assert series.nodule.any()
    assert series.hounsfield[series.nodule].mean() == pytest.approx(60, abs=10)


def test_the_same_seed_makes_the_same_bytes(tmp_path: Path) -> None:
    one, two = made(tmp_path / "1"), made(tmp_path / "2")
    for first, second in zip(one.files, two.files, strict=True):
        assert first.name == second.name
        assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()


def test_each_fault_is_the_one_it_is_named_for(tmp_path: Path) -> None:
    series = {fault: made(tmp_path / fault, fault) for fault in CtFault}
    steps = {
        fault: np.diff(heights(each)) for fault, each in series.items() if fault is not CtFault.MIXED_SIZE
    }
    assert steps[CtFault.GAP].max() == pytest.approx(10)
    assert steps[CtFault.DUPLICATE].min() == pytest.approx(0)
    assert steps[CtFault.UNEVEN].max() == pytest.approx(6.5)
    slices = {fault: [dcmread(path) for path in each.files] for fault, each in series.items()}
    tilted = slices[CtFault.TILT][0]
    row, column = np.reshape([float(value) for value in tilted.ImageOrientationPatient], (2, 3))
    assert abs(np.cross(row, column)[1]) > 0.2
    assert len({str(each.ImageOrientationPatient) for each in slices[CtFault.MIXED_ORIENTATION]}) == 2
    assert len({each.Rows for each in slices[CtFault.MIXED_SIZE]}) == 2
    assert not any("RescaleSlope" in each for each in slices[CtFault.MISSING_RESCALE])
    assert all("LOCALIZER" in each.ImageType for each in slices[CtFault.LOCALIZER])
