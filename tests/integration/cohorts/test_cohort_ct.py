"""CT volumes against what SimpleITK and dcm2niix make of the same slices, voxel for voxel and in the same place."""

import subprocess
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from catalogue_log import COLLECTION
from cohort_files import KEY
from ct_files import CT_DEFINITION, PEOPLE, SCANNERS, phantom
from intake_kit import fixed_intake
from numpy.typing import NDArray

from policies.policy import ConsentMode
from policies.refusals import Refused
from station.catalogue import Catalogue
from station.cohorts import FrozenCohort, SourceFile, VolumeCache, freeze
from station.cohorts.decoding import DecoderPool
from station.cohorts.volumes import Volume, write_volume
from station.handover import load_public_key
from station.intake.intake import Intake
from station.storage import open_database

MINIMUM_HU, MAXIMUM_HU = -1024, 32767


def made(folder: Path, out: Path) -> nibabel.Nifti1Image:
    files = [SourceFile(path) for path in sorted(folder.iterdir())]
    with DecoderPool(size=2) as pool:
        volume = write_volume(files, out, pool)
    assert isinstance(volume, Volume)
    return nibabel.load(out)


def voxels(image: nibabel.Nifti1Image) -> NDArray[np.int16]:
    assert image.get_data_dtype() == np.int16
    return np.asarray(image.dataobj)


def by_simpleitk(folder: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What ITK's series reader makes of it, as (x, y, z) and an affine in RAS."""
    reader = SimpleITK.ImageSeriesReader()
    files = sorted(map(str, folder.iterdir()), key=_height)
    reader.SetFileNames(files)
    image = reader.Execute()
    affine = np.eye(4)
    direction = np.reshape(image.GetDirection(), (3, 3))
    affine[:3, :3] = direction * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    array = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    return np.rint(array).astype(np.int64), np.diag([-1, -1, 1, 1]) @ affine


def _height(path: str) -> float:
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    row, column = np.reshape([float(value) for value in dataset.ImageOrientationPatient], (2, 3))
    return float(np.dot(np.cross(row, column), [float(value) for value in dataset.ImagePositionPatient]))


def by_dcm2niix(folder: Path, out: Path) -> nibabel.Nifti1Image:
    out.mkdir()
    subprocess.run(
        ["/usr/bin/dcm2niix", "-z", "n", "-b", "n", "-f", "volume", "-o", str(out), str(folder)],
        check=True,
        capture_output=True,
    )
    (path,) = out.glob("*.nii")
    return nibabel.load(path)


def compare(folder: Path, tmp_path: Path, *, dcm2niix: bool = True) -> None:
    ours = made(folder, tmp_path / "ours.nii")
    expected, affine = by_simpleitk(folder)
    assert np.array_equal(voxels(ours), np.clip(expected, MINIMUM_HU, MAXIMUM_HU))
    assert np.abs(ours.affine - affine).max() < 1e-3
    assert np.abs(ours.header.get_qform() - ours.header.get_sform()).max() < 1e-3
    if not dcm2niix:
        return
    # It turns rows over; brought to one orientation both must be the same array in the same place.
    theirs = nibabel.as_closest_canonical(by_dcm2niix(folder, tmp_path / "theirs"))
    straight = nibabel.as_closest_canonical(ours)
    assert np.array_equal(voxels(straight), np.clip(np.asarray(theirs.dataobj), MINIMUM_HU, MAXIMUM_HU))
    assert np.abs(straight.affine - theirs.affine).max() < 1e-2


@pytest.mark.shared_data
def test_a_real_chest_ct_is_what_simpleitk_and_dcm2niix_make_of_it(shared_data: Path, tmp_path: Path) -> None:
    compare(shared_data / "ct" / "lung-pet-ct-dx-A0001", tmp_path)


@pytest.mark.shared_data
def test_overlapping_jpeg2000_slices_without_sop_class_are_a_volume_too(
    shared_data: Path, tmp_path: Path
) -> None:
    """3 mm slices 2 mm apart: the spacing is that of the positions."""
    folder = shared_data / "ct" / "totalsegmentator-example"
    ours = made(folder, tmp_path / "ours.nii")
    assert ours.header.get_zooms()[2] == pytest.approx(2.0)
    native = tmp_path / "native"
    native.mkdir()
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.decompress()
        dataset.save_as(native / path.name)
    expected, affine = by_simpleitk(native)
    assert np.array_equal(voxels(ours), np.clip(expected, MINIMUM_HU, MAXIMUM_HU))
    assert np.abs(ours.affine - affine).max() < 1e-3


@pytest.mark.parametrize("name", sorted(SCANNERS))
def test_phantoms_are_what_simpleitk_and_dcm2niix_make_of_them(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    series = phantom(folder, scanner=SCANNERS[name])
    compare(folder, tmp_path)
    ours = nibabel.load(tmp_path / "ours.nii")
    assert np.array_equal(voxels(ours), series.hounsfield.transpose(2, 1, 0))


def test_from_the_scanner_through_intake_and_catalogue_to_a_frozen_volume(tmp_path: Path) -> None:
    """The real pseudonymisation leaves geometry and values: the cohort's volumes are the scanner's, voxel for voxel."""
    incoming, home = tmp_path / "incoming", tmp_path / "home"
    people = PEOPLE[:6]
    written = [phantom(incoming / str(number), number) for number in range(len(people))]
    consent = ["patient_id,decision,purpose,date"]
    consent += [f"{person.patient_id},consent,research-participants,2026-01-01" for person in people]
    paths = fixed_intake(home)
    with Intake(paths) as intake, closing(open_database(home / "station.db")) as database:
        intake.import_folder(incoming, COLLECTION)
        intake.import_consent("\n".join(consent).encode() + b"\n")
        catalogue = Catalogue(database, home / "handover", load_public_key(paths.handover_public_key))
        catalogue.sync()
        definition = CT_DEFINITION.model_copy(update={"label": None, "clinical_fields": ()})
        offered = {COLLECTION: ConsentMode.OPT_IN}
        cases = catalogue.cases(definition, offered, timedelta(days=7), datetime.now(UTC))
        assert not isinstance(cases, Refused)
        assert len(cases) == len(people)
        cohort = freeze(definition, cases, home / "cohorts", KEY, cache=VolumeCache(home / "volumes"))
        files = freeze(
            definition.model_copy(update={"representation": "dicom"}), cases, home / "cohorts", KEY
        )
    assert isinstance(cohort, FrozenCohort)
    assert isinstance(files, FrozenCohort)
    assert dict(cohort.left_out) == dict(files.left_out) == {}
    made = [voxels(nibabel.load(path)) for path in (cohort.path / "images").iterdir()]
    assert made
    originals = {series.hounsfield.transpose(2, 1, 0).tobytes() for series in written}
    assert {volume.tobytes() for volume in made} <= originals
    names = {path.name for path in (cohort.path / "images").iterdir()}
    assert {f"{path.name}.nii" for path in (files.path / "dicom").iterdir()} == names
    for folder in (files.path / "dicom").iterdir():
        again, _ = by_simpleitk(folder)
        ours = voxels(nibabel.load(cohort.path / "images" / f"{folder.name}.nii"))
        assert np.array_equal(ours, again)
        for path in folder.iterdir():
            judged = subprocess.run(
                ["/usr/bin/dciodvfy", str(path)], capture_output=True, text=True, check=False
            )
            assert "Error" not in judged.stdout + judged.stderr
            break
