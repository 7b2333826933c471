"""CT volumes against what SimpleITK and dcm2niix make of the same slices, voxel for voxel and in the same place."""

import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from ct_files import SCANNERS, phantom
from numpy.typing import NDArray

from station.cohorts import SourceFile
from station.cohorts.decoding import DecoderPool
from station.cohorts.volumes import Volume, write_volume

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
