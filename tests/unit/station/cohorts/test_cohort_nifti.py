"""The NIfTI files, as nibabel and MONAI read them."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from cohort_files import picture

from station.cohorts import nifti

TEXT_FIELDS = ("descrip", "aux_file", "intent_name", "data_type", "db_name")


def test_nibabel_reads_the_picture_with_its_spacing_and_no_text(tmp_path: Path) -> None:
    pixels = picture(bits=16)
    path = tmp_path / "a.nii"
    path.write_bytes(nifti.encode(pixels, (0.2, 0.1)))
    image = nibabel.load(path)
    assert image.shape == (20, 12)
    assert np.array_equal(np.asarray(image.dataobj).T, pixels)
    assert image.get_data_dtype() == np.uint16
    assert image.header.get_zooms() == pytest.approx((0.1, 0.2))
    assert np.allclose(image.affine, np.diag([-0.1, -0.2, 1, 1]))
    assert np.allclose(image.header.get_qform(), image.header.get_sform())
    assert image.header.get_xyzt_units()[0] == "mm"
    assert all(bytes(image.header[name]).strip(b"\0") == b"" for name in TEXT_FIELDS)
    assert len(image.header.extensions) == 0


def test_the_pixels_memory_map_where_the_header_says(tmp_path: Path) -> None:
    pixels = picture()
    path = tmp_path / "a.nii"
    path.write_bytes(nifti.encode(pixels, (1, 1)))
    mapped = np.memmap(path, dtype="<u2", mode="r", offset=nifti.VOXEL_OFFSET, shape=pixels.shape)
    assert np.array_equal(mapped, pixels)


@pytest.mark.filterwarnings("ignore")  # of MONAI's own imports and readers
def test_monai_loads_width_by_height(tmp_path: Path) -> None:
    from monai.transforms import LoadImage

    pixels = picture()
    path = tmp_path / "a.nii"
    path.write_bytes(nifti.encode(pixels, (1, 1)))
    loaded = LoadImage(image_only=True, ensure_channel_first=True)(str(path))
    assert tuple(loaded.shape) == (1, 20, 12)
    assert np.array_equal(loaded[0].numpy().T, pixels)


@pytest.mark.parametrize("wrong", [np.zeros((2, 2, 2), np.uint16), np.zeros((2, 2), np.float32)])
def test_anything_but_a_flat_uint16_picture_is_an_error(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="2-D uint16"):
        nifti.encode(wrong, (1, 1))
