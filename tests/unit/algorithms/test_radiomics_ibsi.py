"""The radiomics train against the consensus values of the Image Biomarker Standardisation Initiative.

The digital phantom of IBSI 1 (5x4x4 voxels of 2 mm; CC BY 4.0, design by A. Zwanenburg) and the consensus values for it with their
tolerances are those of the initiative's reference manual (arXiv 1612.07003), as MIRP's repository lists them for its own tests. The
values are given to three digits: a tolerance of 0 means that these agree.
"""

import logging
import subprocess
import sys
from math import floor, log10

import numpy as np
import pytest

from algorithms.radiomics.cubes import on_cubes
from algorithms.radiomics.features import (
    FEATURES,
    BaseMask,
    CTImage,
    NoFeaturesError,
    Processing,
    extract_images,
    features_of,
)

IMAGE = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [1, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 1, 1, 1], [1, 1, 9, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
)
REGION = np.array(
    [
        [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]],
        [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]],
        [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 1, 1, 1]],
        [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]],
    ]
).astype(bool)
CONSENSUS = {
    "volume_mm3": (556, 4),
    "sphericity": (0.843, 0.005),
    "max_diameter_mm": (13.1, 0.1),
    "mean_hu": (2.15, 0),
    "variance": (3.05, 0),
    "skewness": (1.08, 0),
    "kurtosis": (-0.355, 0),
    "p10_hu": (1, 0),
    "p90_hu": (4, 0),
    "glcm_joint_entropy": (2.57, 0),
    "glcm_contrast": (5.12, 0),
    "glcm_correlation": (0.183, 0),
    "glcm_inverse_difference": (0.688, 0),
    "glrlm_short_runs": (0.729, 0),
    "glszm_zone_percentage": (0.0676, 0),
    "ngtdm_coarseness": (0.0296, 0),
    "ngtdm_busyness": (6.54, 0),
}
AS_IT_IS = Processing(spacing_mm=None, bin_width_hu=None, keep_lung_and_tissue=False)


@pytest.fixture(scope="module")
def found() -> dict[str, float]:
    return features_of(IMAGE, REGION, (2.0, 2.0, 2.0), AS_IT_IS)


def test_every_feature_of_the_train_has_a_consensus_value() -> None:
    assert set(CONSENSUS) == set(FEATURES)


@pytest.mark.parametrize("name", CONSENSUS)
def test_a_feature_of_the_digital_phantom_is_the_consensus(found: dict[str, float], name: str) -> None:
    value, tolerance = CONSENSUS[name]
    digits = 2 - floor(log10(abs(found[name])))
    assert abs(round(found[name], digits) - value) <= tolerance + 1e-12


def test_what_else_logs_in_the_process_is_heard_as_before(found: dict[str, float]) -> None:
    assert found
    assert logging.root.manager.disable == logging.NOTSET


def sphere(spacing: tuple[float, float, float], seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A ball of 15 mm of tissue in lung, grainy in the patient's own millimetres."""
    shape = tuple(int(60 / step) for step in spacing)
    z, y, x = ((np.arange(side) + 0.5) * step - 30 for side, step in zip(shape, spacing, strict=True))
    z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
    inside = z**2 + y**2 + x**2 <= 15**2
    grain = 60 * np.sin(z / 2) * np.cos(y / 2.5) * np.sin(x / 3)
    noise = np.random.default_rng(seed).normal(0, 5, shape)
    return np.where(inside, 30 + grain, -850) + noise, inside


def test_a_ball_has_the_size_and_shape_of_a_ball() -> None:
    found = features_of(*sphere((1.0, 1.0, 1.0)), (1.0, 1.0, 1.0), Processing())
    # A cube of 2 mm that is half lesion counts as lesion (IBSI's rule), which adds some percent to a small ball.
    assert found["volume_mm3"] == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.08)
    # Between the corners of cubes.
    assert 30 < found["max_diameter_mm"] < 34
    assert found["sphericity"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("spacing", [(1.5, 0.75, 0.75), (2.5, 1.2, 1.2)])
def test_another_scanners_voxels_change_size_and_shape_little(spacing: tuple[float, float, float]) -> None:
    one = features_of(*sphere((1.0, 1.0, 1.0)), (1.0, 1.0, 1.0), Processing())
    other = features_of(*sphere(spacing), spacing, Processing())
    for name in ("volume_mm3", "max_diameter_mm", "sphericity"):
        assert other[name] == pytest.approx(one[name], rel=0.08), name
    assert other["mean_hu"] == pytest.approx(one["mean_hu"], abs=40)


@pytest.mark.parametrize("spacing", [(3.0, 0.977, 0.977), (1.3, 2.7, 0.7), (1.7, 1.9, 2.3)])
@pytest.mark.parametrize("side_mm", [2.0, 1.0])
def test_cubes_around_the_lesion_are_those_of_the_whole_scan_by_mirp(
    spacing: tuple[float, float, float], side_mm: float
) -> None:
    image, region = sphere(spacing)
    # Off the middle, and up to one end of the scan.
    image, region = np.roll(image, 9, axis=2), np.roll(region, 9, axis=2)
    place = {
        "image_spacing": spacing, "image_origin": (0.0, 0.0, 0.0), "image_orientation": np.eye(3),
        "image_dimensions": image.shape, "image_modality": "ct", "sample_name": "p",
    }  # fmt: skip
    (made,) = extract_images(
        image=CTImage(image_data=np.rint(image), **place),
        mask=BaseMask(roi_name="r", image_data=region, **place),
        image_export_format="native", export_images=True, write_images=False,
        new_spacing=side_mm, anti_aliasing=False, spline_order=1, roi_spline_order=1,
    )  # fmt: skip
    theirs, their_region = made[0][0].get_voxel_grid(), made[1][0].roi.get_voxel_grid()
    ours, our_region = on_cubes(np.rint(image), region, spacing, side_mm)
    assert our_region.sum() == their_region.sum()
    # Where half a unit was interpolated, rounding may go either way.
    assert np.abs(ours[our_region] - theirs[their_region]).max() <= 1
    assert np.mean(ours[our_region] == theirs[their_region]) > 0.999


def test_a_spacing_that_a_header_rounded_gives_no_cube_more() -> None:
    """500 voxels of 0.4 mm are 100 cubes of 2 mm; of float32's 0.4 they are 100.0000015, and 101 would move every one of them."""
    image, region = np.zeros((4, 4, 500)), np.ones((4, 4, 500), bool)
    for step in (0.4, float(np.float32(0.4))):
        values, _ = on_cubes(image, region, (2.0, 2.0, step), 2.0)
        assert values.shape == (4, 4, 100)
    assert on_cubes(image, region, (2.0, 2.0, 0.401), 2.0)[0].shape == (4, 4, 101)


def test_the_size_of_cubes_and_bins_is_what_was_asked_for() -> None:
    image, region = sphere((1.0, 1.0, 1.0))
    fine, coarse = (
        features_of(image, region, (1.0, 1.0, 1.0), Processing(bin_width_hu=width)) for width in (10.0, 100.0)
    )
    assert fine["glcm_joint_entropy"] > coarse["glcm_joint_entropy"] + 1
    assert fine["mean_hu"] == coarse["mean_hu"]
    large = features_of(image, region, (1.0, 1.0, 1.0), Processing(spacing_mm=3.0))
    assert large["glcm_joint_entropy"] != pytest.approx(fine["glcm_joint_entropy"], rel=1e-3)


@pytest.mark.parametrize(
    ("image", "region", "code"),
    [
        (IMAGE, REGION & False, "none"),
        (IMAGE, np.arange(80).reshape(4, 4, 5) < 40, "too-small"),
        (np.full((8, 8, 8), 900), np.ones((8, 8, 8), bool), "too-small"),
        (np.zeros((80, 80, 80)), np.ones((80, 80, 80), bool), "too-large"),
    ],
    ids=["none", "few voxels", "metal alone", "huge"],
)
def test_a_region_without_features_says_why(image: np.ndarray, region: np.ndarray, code: str) -> None:
    with pytest.raises(NoFeaturesError) as caught:
        features_of(image, region, (2.0, 2.0, 2.0), Processing())
    assert caught.value.code == code


def test_pieces_all_over_a_chest_are_too_large_where_the_cubes_between_them_do_not_fit() -> None:
    image, region = np.zeros((70, 70, 70)), np.zeros((70, 70, 70), bool)
    region[:3, :3, :3] = region[-3:, -3:, -3:] = True
    with pytest.raises(NoFeaturesError) as caught:
        features_of(image, region, (5.0, 5.0, 5.0), Processing(spacing_mm=1.0))
    assert caught.value.code == "too-large"


def test_the_libraries_left_out_of_the_image_are_not_needed_and_fail_when_used() -> None:
    code = """
import numpy as np
from algorithms.radiomics.stand_ins import UnusedLibraryError, stand_in
stand_in(always=True)
from algorithms.radiomics.features import Processing, features_of
z, y, x = np.ogrid[:16, :16, :16]
print(round(features_of((z * y + x) % 50, (z - 8) ** 2 + (y - 8) ** 2 + (x - 8) ** 2 < 40, (2, 2, 2), Processing())["volume_mm3"]))
import itk
import matplotlib.pyplot
for used in (lambda: itk.imread("x"), lambda: matplotlib.pyplot.figure()):
    try:
        used()
    except UnusedLibraryError:
        print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    volume, *refused = done.stdout.split()
    assert int(volume) > 1000
    assert refused == ["refused", "refused"]
