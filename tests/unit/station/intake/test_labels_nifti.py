"""NIfTI masks put on the grid of their series: axes, types, radiographs, and what a series must be."""

from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
from clinical_kit import CT_PATIENT, CT_STUDY, SCANNER, affine_of, ct_series, nifti, two_labels
from pseudonym_files import file_bytes, identified

from station.intake.clinical.labels.faults import LabelError, LabelFault
from station.intake.clinical.labels.geometry import SeriesGrid, read_grid
from station.intake.clinical.labels.nifti import aligned_mask
from train_images.phantoms import CtFault, CtScanner, write_ct_series
from train_images.phantoms.people import Person


def put_right(path: Path, data: bytes, grid: SeriesGrid) -> np.ndarray:  # type: ignore[type-arg]
    path.write_bytes(data)
    image = nibabel.Nifti1Image.from_bytes(aligned_mask(path, grid, 2))
    expected = np.eye(4) if grid.affine is None else grid.affine
    assert np.allclose(image.affine, expected, atol=1e-3)
    return np.asanyarray(image.dataobj)


@pytest.mark.parametrize("oblique", [(0.0, 0.0), (12.0, -7.0), (-25.0, 100.0)])
def test_every_order_and_direction_of_the_axes_is_put_right(
    tmp_path: Path, oblique: tuple[float, float]
) -> None:
    scanner = CtScanner(slices=6, size_px=16, pixel_mm=(20.0, 22.0), increment_mm=30.0, oblique_deg=oblique)
    series = ct_series(tmp_path / "ct", scanner)
    grid = read_grid(series.files)
    assert grid.affine is not None
    assert grid.shape == (16, 16, 6)
    assert np.allclose(grid.affine, affine_of(series), atol=1e-3)
    mask = two_labels(series).transpose(2, 1, 0)
    image = nibabel.Nifti1Image(mask, affine_of(series))
    for axes, turns in product(permutations(range(3)), product((1, -1), repeat=3)):
        turned = image.as_reoriented([[axis, turn] for axis, turn in zip(axes, turns, strict=True)])
        found = put_right(tmp_path / "mask.nii", bytes(turned.to_bytes()), grid)
        assert np.array_equal(found, mask), (axes, turns)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_voxels_of_any_plain_type_become_bytes(tmp_path: Path, dtype: type) -> None:
    series = ct_series(tmp_path / "ct")
    mask = two_labels(series)
    data = nifti(mask, affine_of(series), dtype=dtype)
    assert np.array_equal(
        put_right(tmp_path / "mask.nii", data, read_grid(series.files)), mask.transpose(2, 1, 0)
    )


def test_big_endian_and_nifti_2_are_read_too(tmp_path: Path) -> None:
    series = ct_series(tmp_path / "ct")
    mask, grid = two_labels(series).transpose(2, 1, 0), read_grid(series.files)
    big = nibabel.Nifti1Image(mask.astype(">i2"), affine_of(series), nibabel.Nifti1Header(endianness=">"))
    second = nibabel.Nifti2Image(mask.astype(np.int16), affine_of(series))
    for image in (big, second):
        assert np.array_equal(put_right(tmp_path / "mask.nii", bytes(image.to_bytes()), grid), mask)


def test_a_radiograph_is_matched_by_its_shape(tmp_path: Path) -> None:
    path = tmp_path / "1.dcm"
    path.write_bytes(file_bytes(identified()))
    grid = read_grid([path])
    assert grid.affine is None
    columns, rows, _ = grid.shape
    mask = np.zeros((columns, rows), np.uint8)
    mask[0, -1] = 1
    data = bytes(nibabel.Nifti1Image(mask, np.diag([-3.0, 3.0, 1.0, 1.0])).to_bytes())
    assert np.array_equal(put_right(tmp_path / "mask.nii", data, grid)[:, :, 0], mask)
    wrong = bytes(nibabel.Nifti1Image(np.zeros((columns + 1, rows), np.uint8), np.eye(4)).to_bytes())
    (tmp_path / "mask.nii").write_bytes(wrong)
    with pytest.raises(LabelError) as caught:
        aligned_mask(tmp_path / "mask.nii", grid, 2)
    assert caught.value.fault is LabelFault.SHAPE_DIFFERS


@pytest.mark.parametrize(
    "fault", [CtFault.GAP, CtFault.UNEVEN, CtFault.MIXED_ORIENTATION, CtFault.MIXED_SIZE, CtFault.DUPLICATE]
)
def test_a_series_that_is_no_even_stack_takes_no_mask(tmp_path: Path, fault: CtFault) -> None:
    person: Person = CT_PATIENT
    series = write_ct_series(tmp_path, person=person, study=CT_STUDY, seed=7, scanner=SCANNER, fault=fault)
    with pytest.raises(LabelError) as caught:
        read_grid(series.files)
    assert caught.value.fault is LabelFault.SERIES_NOT_A_VOLUME


def test_a_series_without_files_is_none() -> None:
    with pytest.raises(LabelError) as caught:
        read_grid([])
    assert caught.value.fault is LabelFault.SERIES_UNKNOWN
