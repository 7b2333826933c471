"""Volumes that a map program is given: read as they lie, and refused where a header lies."""

import json
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from lung_kit import write_patient, write_volume

from algorithms.one_patient import (
    NoRowError,
    NotAVolumeError,
    Patient,
    Volume,
    read_volume,
    upright,
    write_row,
)

AFFINE = np.array([[-0.8, 0, 0, 10.0], [0, 0.0, -3.0, 20.0], [0, -0.9, 0, -5.0], [0, 0, 0, 1.0]])


def stack(kind: type = np.int16) -> np.ndarray:
    return np.arange(5 * 6 * 7).reshape(5, 6, 7).astype(kind)


@pytest.mark.parametrize("kind", [np.int16, np.uint8])
def test_a_volume_is_read_as_nibabel_reads_it(tmp_path: Path, kind: type) -> None:
    write_volume(tmp_path / "one.nii", stack(kind), AFFINE)
    found, known = read_volume(tmp_path / "one.nii"), nibabel.nifti1.load(tmp_path / "one.nii")
    assert np.array_equal(found.voxels, np.asarray(known.dataobj))
    assert np.allclose(found.affine, known.affine, atol=1e-6)
    assert found.spacing_mm == pytest.approx((0.8, 0.9, 3.0))


def test_an_upright_volume_is_what_nibabel_takes_for_the_nearest_to_ras(tmp_path: Path) -> None:
    write_volume(tmp_path / "one.nii", stack(), AFFINE)
    found = upright(read_volume(tmp_path / "one.nii"))
    known = nibabel.as_closest_canonical(nibabel.nifti1.load(tmp_path / "one.nii"))
    assert np.array_equal(found.voxels, np.asarray(known.dataobj))
    assert np.allclose(found.affine, known.affine, atol=1e-5)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, struct.pack("<i", 540)),
        (40, struct.pack("<h", 4)),
        (42, struct.pack("<h", 0)),
        (42, struct.pack("<h", 32767)),
        (44, struct.pack("<h", 5)),
        (70, struct.pack("<h", 16)),
        (72, struct.pack("<h", 8)),
        (108, struct.pack("<f", 0.0)),
        (108, struct.pack("<f", float("nan"))),
        (112, struct.pack("<f", 2.0)),
        (254, struct.pack("<h", 0)),
        (280, struct.pack("<f", float("inf"))),
        (280, struct.pack("<f", 0.0)),
        (284, struct.pack("<f", 0.5)),
        (344, b"ni1\0"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, at: int, value: bytes) -> None:
    write_volume(tmp_path / "one.nii", stack(), AFFINE)
    data = bytearray((tmp_path / "one.nii").read_bytes())
    data[at : at + len(value)] = value
    (tmp_path / "one.nii").write_bytes(data)
    with pytest.raises(NotAVolumeError):
        read_volume(tmp_path / "one.nii")


@pytest.mark.parametrize("size", [0, 100, 347, 700])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, size: int) -> None:
    write_volume(tmp_path / "one.nii", stack(), AFFINE)
    (tmp_path / "one.nii").write_bytes((tmp_path / "one.nii").read_bytes()[:size])
    with pytest.raises(NotAVolumeError):
        read_volume(tmp_path / "one.nii")


def test_a_label_map_that_lies_elsewhere_than_its_image_is_not_taken_for_its_own(tmp_path: Path) -> None:
    write_patient(tmp_path, Volume(stack(), AFFINE), labels=(np.zeros((5, 6, 7), np.uint8),))
    assert len(list(Patient(tmp_path, {}).scans())) == 1
    (path,) = (tmp_path / "labels").iterdir()
    write_volume(path, np.zeros((5, 6, 7), np.uint8), AFFINE @ np.diag([-1.0, -1.0, 1.0, 1.0]))
    with pytest.raises(NoRowError, match="UNREADABLE"):
        next(Patient(tmp_path, {}).scans())


def test_an_unreadable_scan_is_an_error_in_place_of_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_patient(tmp_path, Volume(stack(), AFFINE), labels=(np.zeros((5, 6, 8), np.uint8),))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHT_DATA", str(tmp_path))
    with pytest.raises(NoRowError, match="UNREADABLE"):
        next(Patient(tmp_path, {}).scans())
    write_row(lambda patient: {"scans": len(list(patient.scans()))})
    assert json.loads((tmp_path / "reply" / "row.json").read_text()) == {"error": "UNREADABLE"}
