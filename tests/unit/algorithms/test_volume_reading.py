"""Volumes read through a map: the same voxels in the same places as nibabel, MONAI and SimpleITK find them."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImage, Orientation, Spacing
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import NDArray

from algorithms.volumes.errors import VolumeError
from algorithms.volumes.mapped import open_volume
from algorithms.volumes.patches import FileSource
from algorithms.volumes.transforms import LABEL, read_volume
from station.cohorts import nifti

# MONAI looks for a decoder plugin of a package that neither we nor the image have, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")

SPACING = (0.8, 1.1, 2.5)
SHAPE = (37, 29, 23)


def turned(
    angles_deg: tuple[float, float, float], origin: tuple[float, float, float] = (-30.0, 12.0, 7.5)
) -> Any:
    """An affine of SPACING whose axes are turned about x, y and z."""
    affine = np.eye(4)
    for axis, angle in enumerate(np.radians(angles_deg)):
        turn = np.eye(3)
        a, b = [other for other in range(3) if other != axis]
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, :3] = affine[:3, :3] @ np.diag(SPACING)
    affine[:3, 3] = origin
    return affine


AFFINES = {
    "ras": turned((0, 0, 0)),
    "as a station writes axial slices": turned((0, 0, 180)),
    "upside down": turned((180, 0, 0)),
    "oblique": turned((12, -7, 180)),
    "steep": turned((-25, 10, 100)),
    "coronal": turned((90, 0, 0)),
}
MIRRORED = {"mirrored": AFFINES["oblique"] @ np.diag([-1.0, 1.0, 1.0, 1.0])}


def smooth() -> NDArray[np.int16]:
    """A volume without symmetry in which linear interpolation is close to what it stands for."""
    x, y, z = np.meshgrid(*[np.linspace(0, 1, size) for size in SHAPE], indexing="ij")
    return np.rint(900 * np.sin(3 * x + 1) * np.cos(2 * y) + 600 * z * z - 300 * x * y).astype(np.int16)


def written(path: Path, voxels: NDArray[Any], affine: Any) -> Path:
    """A file byte for byte as a station writes it."""
    data = np.asfortranarray(voxels).tobytes(order="F")
    path.write_bytes(nifti.header(voxels.shape, affine, voxels.dtype) + data)
    return path


def by_simpleitk(path: Path, affine: Any, shape: tuple[int, ...], *, linear: bool) -> NDArray[np.float64]:
    """What ITK finds at the voxels of a grid, asked in its own LPS space."""
    image = SimpleITK.Cast(SimpleITK.ReadImage(str(path)), SimpleITK.sitkFloat64)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    resampler = SimpleITK.ResampleImageFilter()
    resampler.SetSize([int(size) for size in shape])
    resampler.SetOutputOrigin(lps[:3, 3].tolist())
    resampler.SetOutputSpacing(spacing.tolist())
    resampler.SetOutputDirection((lps[:3, :3] / spacing).ravel().tolist())
    resampler.SetInterpolator(SimpleITK.sitkLinear if linear else SimpleITK.sitkNearestNeighbor)
    resampler.SetDefaultPixelValue(np.nan)
    return SimpleITK.GetArrayFromImage(resampler.Execute(image)).transpose(2, 1, 0)


@pytest.mark.parametrize("name", AFFINES)
def test_a_whole_volume_is_what_monai_loads_and_turns_to_ras(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.nii", smooth(), AFFINES[name])
    ours = read_volume(path)
    theirs = Compose([LoadImage(ensure_channel_first=True), Orientation("RAS", labels=None)])(path)
    assert ours.dtype == torch.int16
    assert np.array_equal(ours.numpy(), theirs.numpy())
    assert np.allclose(ours.affine.numpy(), theirs.affine.numpy(), atol=1e-4)
    if name != "ras":
        # Not by chance: the file's own order is another.
        assert ours.shape[1:] != SHAPE or not np.array_equal(ours[0].numpy(), smooth())


@pytest.mark.parametrize("name", [*AFFINES, *MIRRORED])
def test_every_voxel_is_where_simpleitk_finds_it(name: str, tmp_path: Path) -> None:
    affine = (AFFINES | MIRRORED)[name]
    path = tmp_path / "a.nii"
    image = nibabel.Nifti1Image(smooth(), affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    nibabel.save(image, path)
    for start, shape in (((0, 0, 0), (20, 18, 15)), ((5, 3, 2), (12, 12, 12))):
        for spacing in (None, (1.0, 1.0, 1.0), (2.0, 1.5, 3.0)):
            source = FileSource(open_volume(path), spacing)
            box = source.grid.part(start, shape)
            expected = by_simpleitk(path, box.affine, shape, linear=True)
            inside = ~np.isnan(expected)
            assert inside.mean() > 0.3
            found = source.read(start, shape, -5000)
            # Rounded to whole numbers; ITK's own arithmetic is in double precision.
            assert np.abs(found - expected)[inside].max() <= 0.51, (start, spacing)


@pytest.mark.parametrize("name", ["ras", "as a station writes axial slices", "upside down", "coronal"])
def test_another_spacing_is_monais(name: str, tmp_path: Path) -> None:
    # Straight axes: of oblique ones MONAI lets the grid's middle stay where it was, by an error of rounding.
    path = written(tmp_path / "a.nii", smooth(), AFFINES[name])
    loaded = Compose([LoadImage(ensure_channel_first=True), Orientation("RAS", labels=None)])(path)
    for wanted in ((1.5, 1.5, 3.0), (0.5, 0.9, 1.0), (1.6, 1.6, 2.0), SPACING):
        theirs = Spacing(
            wanted, mode="bilinear", padding_mode="border", align_corners=True, dtype=np.float64
        )(loaded)
        ours = read_volume(path, wanted)
        assert ours.shape == theirs.shape
        assert np.allclose(ours.affine.numpy(), theirs.affine.numpy(), atol=1e-4)
        assert np.abs(ours.numpy() - theirs.numpy()).max() <= 0.51


def test_label_maps_keep_their_values_and_their_places(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:20, 8:15, 3:9], labels[22:30, 2:12, 10:20] = 1, 7
    path = written(tmp_path / "a.nii", labels, AFFINES["steep"])
    found = read_volume(path, (1.3, 0.7, 1.9), LABEL)
    assert found.dtype == torch.uint8
    assert set(np.unique(found.numpy())) == {0, 1, 7}
    expected = by_simpleitk(path, found.affine.numpy(), found.shape[1:], linear=False)
    inside = ~np.isnan(expected)
    # A voxel in the middle between two may go either way.
    assert (found[0].numpy() == expected)[inside].mean() > 0.995


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0), (1.7, 0.6, 4.0)])
def test_a_patch_is_that_part_of_the_whole_bit_for_bit(spacing: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    noise = random.integers(-1024, 3000, (61, 47, 70), dtype=np.int16)
    path = written(tmp_path / "a.nii", noise, AFFINES["oblique"])
    source = FileSource(open_volume(path), spacing)
    whole = read_volume(path, spacing)[0].numpy()
    for _ in range(20):
        start = tuple(int(v) for v in random.integers(-10, whole.shape))
        shape = tuple(int(v) for v in random.integers(1, 40, 3))
        padded = np.pad(whole, [(50, 50)] * 3, constant_values=-1024)
        part = tuple(
            slice(at + 50, min(at + 50 + size, whole_size + 100))
            for at, size, whole_size in zip(start, shape, whole.shape, strict=True)
        )
        expected = padded[part]
        found = source.read(start, shape, -1024)[tuple(slice(0, size) for size in expected.shape)]
        assert np.array_equal(found, expected)


def test_scaled_files_give_their_values(tmp_path: Path) -> None:
    path = written(tmp_path / "a.nii", smooth(), AFFINES["oblique"])
    head = bytearray(path.read_bytes())
    head[112:120] = np.array([0.5, -100.25], "<f4").tobytes()
    path.write_bytes(bytes(head))
    theirs = Compose([LoadImage(ensure_channel_first=True), Orientation("RAS", labels=None)])(path)
    ours = read_volume(path)
    assert ours.dtype == torch.float32
    assert np.allclose(ours.numpy(), theirs.numpy(), atol=1e-3)


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    """Of a file whose other voxels are a hole of 4 GiB, a patch is read at once and in little memory."""
    import resource

    path = tmp_path / "a.nii"
    shape = (2048, 2048, 512)
    with path.open("wb") as file:
        file.write(nifti.header(shape, AFFINES["ras"], np.dtype("<i2")))
        file.truncate(352 + 2 * 2048 * 2048 * 512)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = FileSource(open_volume(path), (1.0, 1.0, 1.0)).read((500, 700, 100), (96, 96, 48), 0)
    assert found.shape == (96, 96, 48)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


def change(data: bytearray, at: int, value: Any) -> bytes:
    data[at : at + value.nbytes] = value.tobytes()
    return bytes(data)


HOSTILE = {
    "cut off": (lambda data: bytes(data[:-1]), "bytes and its header speaks of"),
    "longer than it says": (lambda data: bytes(data) + b"x", "bytes and its header speaks of"),
    "only a header": (lambda data: bytes(data[:348]), "bytes and its header speaks of"),
    "less than a header": (lambda data: bytes(data[:100]), "no single-file NIfTI-1"),
    "empty": (lambda _data: b"", "no single-file NIfTI-1"),
    "gzip": (lambda data: b"\x1f\x8b" + bytes(data[2:]), "decompress it"),
    "big-endian": (lambda data: change(data, 0, np.array([348], ">i4")), "big-endian"),
    "another format": (lambda data: change(data, 344, np.frombuffer(b"ni1\0", np.uint8)), "no single-file NIfTI-1"),
    "two axes": (lambda data: change(data, 40, np.array([2], "<i2")), "no volume of three axes"),
    "four axes": (lambda data: change(data, 40, np.array([4, 37, 29, 23, 2], "<i2")), "no volume of three axes"),
    "too many axes": (lambda data: change(data, 40, np.array([9], "<i2")), "no volume of three axes"),
    "negative size": (lambda data: change(data, 42, np.array([-37], "<i2")), "no volume of three axes"),
    "a size that lies": (lambda data: change(data, 42, np.array([32767] * 3, "<i2")), "no volume of three axes"),
    "more slices than there are": (lambda data: change(data, 46, np.array([24], "<i2")), "header speaks of"),
    "voxels of float": (lambda data: change(data, 70, np.array([16], "<i2")), "another kind than uint8, int16"),
    "voxels of no kind": (lambda data: change(data, 70, np.array([999], "<i2")), "another kind than uint8, int16"),
    "voxels in the header": (lambda data: change(data, 108, np.array([0], "<f4")), "in its header or nowhere"),
    "voxels nowhere": (lambda data: change(data, 108, np.array([np.nan], "<f4")), "in its header or nowhere"),
    "voxels beyond the end": (lambda data: change(data, 108, np.array([1e9], "<f4")), "header speaks of"),
    "scaled by nothing": (lambda data: change(data, 112, np.array([np.inf], "<f4")), "which are no numbers"),
    "no spacing": (
        lambda data: change(bytearray(change(data, 76, np.zeros(4, "<f4"))), 280, np.zeros(12, "<f4")),
        "geometry",
    ),
    "nowhere": (lambda data: change(data, 252, np.zeros(2, "<i2")), "neither a qform nor an sform"),
    "sform of nothing": (lambda data: change(data, 280, np.full(12, np.nan, "<f4")), "geometry"),
    "two truths": (lambda data: change(data, 268, np.array([99.0], "<f4")), "disagree"),
    "sheared": (lambda data: change(bytearray(change(data, 252, np.array([0], "<i2"))), 284, np.array([0.5], "<f4")), "right angles"),
    "in metres": (lambda data: change(data, 123, np.array([1], np.uint8)), "millimetres"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_lies_is_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.nii", smooth(), AFFINES["as a station writes axial slices"])
    spoil, says = HOSTILE[name]
    path.write_bytes(spoil(bytearray(path.read_bytes())))
    with pytest.raises(VolumeError, match=says) as caught:
        open_volume(path)
    assert caught.value.pht_error_code == "VOLUME_UNREADABLE"


def test_a_file_that_is_not_there_and_one_that_changed_since(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="is it listed and there"):
        open_volume(tmp_path / "a.nii")
    path = written(tmp_path / "a.nii", smooth(), AFFINES["ras"])
    open_volume(path)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(VolumeError, match="header speaks of"):
        open_volume(path)


def test_what_comes_out_is_a_metatensor_that_monai_goes_on_with(tmp_path: Path) -> None:
    path = written(tmp_path / "a.nii", smooth(), AFFINES["oblique"])
    found = read_volume(path, (2.0, 2.0, 2.0))
    assert isinstance(found, MetaTensor)
    back = Orientation("LPS", labels=None)(found)
    transform = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt("LPS"))
    assert np.array_equal(
        back[0].numpy(), nibabel.orientations.apply_orientation(found[0].numpy(), transform)
    )
    assert np.allclose(nibabel.affines.voxel_sizes(back.affine.numpy()), (2.0, 2.0, 2.0))
