"""Geometry from the file to the mark: flipped, oblique and anisotropic volumes, against SimpleITK and by hand."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import segmentation_kit
import SimpleITK
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance
from segmentation_kit import ball
from torch import nn

from algorithms.ct_segmentation.agreement import Agreement, agreement, summary
from algorithms.ct_segmentation.inference import classes_on, in_stored_order, label_map, logits_of
from algorithms.volumes.grids import Grid
from algorithms.volumes.mapped import open_volume

pytestmark = [
    pytest.mark.filterwarnings("ignore:NvImgCodec"),
    # MONAI 1.6.1 calls its own function with an argument that it has deprecated itself.
    pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges"),
]

SHAPE, SPACING_MM = (44, 40, 22), (1.5, 1.8, 4.0)
SAMPLING = replace(
    segmentation_kit.SAMPLING,
    spacing_mm=(2.0, 2.0, 3.0),
    patch=(32, 32, 16),
    patches_per_case=1,
    augment=False,
)


class Threshold(nn.Module):
    """A network whose answer is known: what is denser than halfway between lung and tissue."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        dense = images - (-380 + 1000) / 1400
        return torch.cat([-dense, dense], dim=1)


def affine_of(directions: str, oblique_deg: float = 0.0) -> Any:
    """An affine whose axes run to these sides of the patient, then all turned about an oblique axis."""
    columns = {
        "R": (1, 0, 0),
        "L": (-1, 0, 0),
        "A": (0, 1, 0),
        "P": (0, -1, 0),
        "S": (0, 0, 1),
        "I": (0, 0, -1),
    }
    axes = np.array([columns[each] for each in directions], dtype=float).T
    angle, axis = math.radians(oblique_deg), np.array([1.0, 2.0, 3.0]) / math.sqrt(14)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes @ np.diag(SPACING_MM)
    affine[:3, 3] = (-12.0, 30.0, 5.0)
    return affine


def phantom(path: Path, affine: Any) -> Any:
    """Two balls of tissue, one small and off every middle line; returns where they are."""
    inside = ball(SHAPE, SPACING_MM, (24, 30, 40), 15) | ball(SHAPE, SPACING_MM, (54, 58, 68), 8)
    # What a scanner sees is never a step: one voxel of blur.
    image = SimpleITK.GetImageFromArray(np.where(inside, 40.0, -800.0).T)
    image.SetSpacing(SPACING_MM)
    smooth = SimpleITK.GetArrayFromImage(SimpleITK.SmoothingRecursiveGaussian(image, 2.0)).T
    volume = nibabel.Nifti1Image(np.rint(smooth).astype(np.int16), affine)
    volume.set_qform(affine, code=1)
    volume.set_sform(affine, code=1)
    nibabel.save(volume, path)
    return smooth > -380


@pytest.mark.parametrize(
    ("directions", "oblique_deg"),
    [("RAS", 0), ("LPS", 0), ("RPI", 0), ("ASL", 0), ("SLP", 0), ("LPS", 17), ("PIR", -23), ("LAS", 9)],
)
def test_a_mark_lies_on_what_it_marks_however_the_volume_is_stored(
    directions: str, oblique_deg: float, tmp_path: Path
) -> None:
    path = tmp_path / "a.nii"
    dense = phantom(path, affine_of(directions, oblique_deg))
    found = label_map(logits_of(Threshold(), path, SAMPLING, torch.device("cpu")), path, SAMPLING)
    # In the very array that NIfTI readers give: what a DICOM SEG would be written from.
    stored = np.asarray(nibabel.load(path).dataobj)
    assert found.shape == stored.shape
    assert found.dtype == np.uint8
    # To another grid and back blurs; nothing may move. A shift by one voxel along any axis would cost a tenth and more.
    agree = 2 * (found & dense).sum() / (found.sum() + dense.sum())
    assert agree > 0.97
    for axis in range(3):
        for step in (-1, 1):
            moved = np.roll(dense, step, axis)
            assert 2 * (found & moved).sum() / (found.sum() + moved.sum()) < agree - 0.02
    assert (
        np.abs(_middle(path, found) - _middle(path, dense)).max() < 0.4
    )  # a quarter of the smallest side of a voxel


def _middle(path: Path, mask: Any) -> Any:
    """The middle of a mask in the patient's millimetres, by SimpleITK."""
    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8).T)
    image.CopyInformation(SimpleITK.ReadImage(str(path)))
    statistics = SimpleITK.LabelShapeStatisticsImageFilter()
    statistics.Execute(image)
    return np.asarray(statistics.GetCentroid(1))


def test_logits_come_back_as_simpleitk_resamples_them(tmp_path: Path) -> None:
    """Each class on the image's own grid, slab by slab, against ITK's linear interpolation in the patient's space."""
    path = tmp_path / "a.nii"
    phantom(path, affine_of("LPS", 17))
    volume = open_volume(path)
    work = volume.grid.with_spacing(SAMPLING.spacing_mm)
    random = np.random.default_rng(2)
    logits = random.normal(size=(3, *work.shape)).astype(np.float32)
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    reference = _itk(np.zeros(volume.grid.shape, np.float32), flip @ volume.grid.affine)
    expected = np.stack(
        [
            SimpleITK.GetArrayFromImage(
                SimpleITK.Resample(
                    _itk(each, flip @ work.affine),
                    reference,
                    SimpleITK.Transform(),
                    SimpleITK.sitkLinear,
                    -99.0,
                )
            ).T
            for each in logits
        ]
    )
    inside = (expected != -99.0).all(axis=0)
    found = classes_on(volume.grid, torch.from_numpy(logits), SAMPLING.spacing_mm)
    assert inside.mean() > 0.9
    assert (found == expected.argmax(axis=0))[inside].mean() > 0.999


def _itk(voxels: Any, lps: Any) -> Any:
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.T))
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


@pytest.mark.parametrize("directions", ["LPS", "ASL", "SLP", "PIR"])
def test_back_in_stored_order_is_the_inverse_of_ras_order(directions: str, tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    phantom(path, affine_of(directions, 11))
    volume = open_volume(path)
    assert np.array_equal(in_stored_order(np.asarray(volume.voxels()), volume), np.asarray(volume.stored()))


@pytest.mark.parametrize(("axis", "step_mm"), [(0, 1.5), (1, 1.8), (2, 4.0)])
def test_distances_are_in_millimetres_along_every_axis(axis: int, step_mm: float) -> None:
    """Two equal boxes, one moved by two voxels: 5 % of either surface lie beyond, so the distance is that of two steps."""
    grid = Grid(SHAPE, affine_of("RAS"))
    marked = np.zeros(SHAPE, bool)
    marked[10:20, 10:20, 6:16] = True
    found = np.roll(marked, 2, axis)
    one = agreement(found, marked, grid)
    assert one.hd95_mm == pytest.approx(2 * step_mm, rel=1e-5)
    assert one.dice == pytest.approx(0.8)
    assert one.false_alarm is None


def test_the_box_about_a_structure_changes_no_number_and_simpleitk_agrees() -> None:
    grid = Grid(SHAPE, affine_of("RAS"))
    # One of them touches the volume's side.
    marked = ball(SHAPE, SPACING_MM, (4, 30, 40), 15)
    found = ball(SHAPE, SPACING_MM, (9, 27, 43), 12)
    one = agreement(found, marked, grid)
    whole = [torch.from_numpy(each)[None, None] for each in (found, marked)]
    assert one.dice == pytest.approx(float(compute_dice(*whole, include_background=True)), abs=1e-7)
    of_itk = SimpleITK.LabelOverlapMeasuresImageFilter()
    images = [SimpleITK.GetImageFromArray(each.astype(np.uint8).T) for each in (found, marked)]
    for image in images:
        image.SetSpacing(SPACING_MM)
    of_itk.Execute(*images)
    assert one.dice == pytest.approx(of_itk.GetDiceCoefficient(), abs=1e-6)
    # The whole Hausdorff distance is one that ITK has too; 95 % lies below it, and MONAI's own is cut at no side.
    assert one.hd95_mm == pytest.approx(_hd95(found, marked), abs=1e-4)
    padded = [torch.from_numpy(np.pad(each, 1))[None, None] for each in (found, marked)]
    monais = compute_hausdorff_distance(
        *padded, include_background=True, percentile=95, spacing=list(SPACING_MM)
    )
    assert one.hd95_mm == pytest.approx(float(monais), abs=1e-4)


def _hd95(found: Any, marked: Any) -> float:
    """The definition, point by point: the larger of the 95 % quantiles of both ways from edge voxel to nearest edge voxel."""
    edges = []
    for mask in (found, marked):
        padded = np.pad(mask, 1)
        inner = padded.copy()
        for axis in range(3):
            inner &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
        edges.append(np.argwhere((padded & ~inner)[1:-1, 1:-1, 1:-1]) * SPACING_MM)
    apart = np.linalg.norm(edges[0][:, None] - edges[1][None], axis=2)
    return float(max(np.quantile(apart.min(axis=1), 0.95), np.quantile(apart.min(axis=0), 0.95)))


def test_what_is_missed_counts_and_what_is_not_there_has_no_dice() -> None:
    grid = Grid(SHAPE, affine_of("RAS"))
    marked, nothing = ball(SHAPE, SPACING_MM, (24, 30, 40), 9), np.zeros(SHAPE, bool)
    diagonal = math.dist((0, 0, 0), [size * step for size, step in zip(SHAPE, SPACING_MM, strict=True)])
    missed = agreement(nothing, marked, grid)
    assert (missed.dice, missed.hd95_mm) == (0.0, pytest.approx(diagonal))
    assert agreement(marked, nothing, grid) == Agreement(None, None, True)
    assert agreement(nothing, nothing, grid) == Agreement(None, None, False)
    assert agreement(marked, marked, grid) == Agreement(1.0, 0.0, None)


def test_means_are_over_patients_and_told_of_enough_of_them_only() -> None:
    def found(dice: float) -> dict[str, Agreement]:
        return {"nodule": Agreement(dice, 10 * dice, None)}

    def alarm(value: bool) -> dict[str, Agreement]:
        return {"nodule": Agreement(None, None, value)}

    # One patient with three cases counts once.
    cases = [("p0", found(0.0))] * 3 + [(f"p{at}", found(1.0)) for at in range(1, 5)]
    cases += [(f"q{at}", alarm(at == 0)) for at in range(4)]
    assert summary(cases, ["nodule"]) == {
        "dice_nodule": pytest.approx(0.8),
        "hd95_mm_nodule": pytest.approx(8.0),
    }
    assert summary([*cases, ("q4", alarm(False))], ["nodule"])["false_alarms_nodule"] == pytest.approx(0.2)
    assert summary(cases[:-5], ["nodule"]) == {}
