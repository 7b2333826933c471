"""Patches drawn about structures through a map or from memory, and a cache that fits the limit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, MapTransform, RandFlipd, ScaleIntensityRanged, Transform

from algorithms.volumes import caching
from algorithms.volumes.caching import bytes_of, cached, cases_that_fit, memory_limit_bytes
from algorithms.volumes.errors import GridError
from algorithms.volumes.mapped import open_volume
from algorithms.volumes.transforms import RandPatchesd, Reading, ReadVolumesd, places_of_structures
from station.cohorts import nifti

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")

AFFINE = np.array([[-0.9, 0.1, 0.0, 40.0], [-0.1, -0.9, 0.0, 30.0], [0.0, 0.0, 2.0, -20.0], [0, 0, 0, 1]])
AFFINE[:3, :2] *= 0.8 / np.linalg.norm(AFFINE[:3, 0])
SHAPE = (50, 44, 30)
READING = Reading(spacing_mm=(1.0, 1.0, 1.5))


def write(path: Path, voxels: Any, affine: Any = AFFINE) -> str:
    path.write_bytes(nifti.header(voxels.shape, affine, voxels.dtype) + voxels.tobytes(order="F"))
    return str(path)


def case(folder: Path, number: int, *, empty: bool = False) -> dict[str, Any]:
    """A volume whose values tell where its voxels lie, with a large structure and a small one."""
    random = np.random.default_rng(number)
    x, y, z = np.meshgrid(*[np.arange(size) for size in SHAPE], indexing="ij")
    labels = np.zeros(SHAPE, np.uint8)
    if not empty:
        labels[10:40, 10:30, 4:26] = 1
        labels[44:46, 40:42, 27:29] = 2
    image = write(folder / f"i{number}.nii", (7 * x + 5 * y + 3 * z + random.integers(0, 9)).astype(np.int16))
    return {"image": image, "label": write(folder / f"l{number}.nii", labels), "case": f"c{number}"}


def draws(item: dict[str, Any], seed: int, **choices: Any) -> list[dict[Any, Any]]:
    transform = RandPatchesd(READING, (16, 12, 10), **choices)
    transform.set_random_state(seed=seed)
    return transform(item)


def test_image_and_label_are_of_one_box_and_know_where_it_lies(tmp_path: Path) -> None:
    item = case(tmp_path, 1)
    whole = ReadVolumesd(READING)(item)
    for patch in draws(item, 3, count=12):
        assert patch["image"].shape == patch["label"].shape == (1, 16, 12, 10)
        assert torch.equal(patch["image"].affine, patch["label"].affine)
        assert patch["case"] == "c1"
        # Where its affine says that it lies, the whole volume has the same voxels.
        to_whole = np.linalg.solve(whole["image"].affine.numpy(), patch["image"].affine.numpy())
        start = np.rint(to_whole[:3, 3]).astype(int)
        assert np.allclose(to_whole[:3, 3], start, atol=1e-6)
        box = (0, *(slice(at, at + size) for at, size in zip(start, (16, 12, 10), strict=True)))
        for key in ("image", "label"):
            assert torch.equal(patch[key][0].as_tensor(), whole[key].as_tensor()[box])


def test_structures_are_drawn_evenly_and_as_often_as_asked(tmp_path: Path) -> None:
    item = case(tmp_path, 1)
    seen = [
        set(np.unique(patch["label"].numpy()))
        for patch in draws(item, 1, count=200, share_about_structures=1.0)
    ]
    assert all(values - {0} for values in seen)
    # The small one has 8 voxels, the large one 13200, and each is the middle of half of the patches.
    assert 0.35 < np.mean([2 in values for values in seen]) < 0.65
    away = draws(item, 1, count=200, share_about_structures=0.0)
    assert np.mean([2 in patch["label"].numpy() for patch in away]) < 0.25
    assert len(draws(case(tmp_path, 2, empty=True), 1, count=5, share_about_structures=1.0)) == 5


def test_where_structures_are_is_told_in_ras_order(tmp_path: Path) -> None:
    file = open_volume(case(tmp_path, 1)["label"])
    large, small = places_of_structures(file)
    voxels = file.voxels()
    assert set(voxels[tuple(large.T)]) == {1}
    assert sorted(map(tuple, small.tolist())) == sorted(map(tuple, np.argwhere(voxels == 2).tolist()))
    assert len(large) == 30 * 20 * 22
    # Kept for every case of a cohort, beside the cache: six bytes for a voxel.
    assert large.nbytes == 6 * len(large)


def test_a_small_volume_lies_in_the_middle_of_air(tmp_path: Path) -> None:
    item = case(tmp_path, 1)
    (patch,) = RandPatchesd(READING, (96, 96, 96), count=1)(item)
    whole = ReadVolumesd(READING)(item)
    outside = patch["image"][0] == -1024
    assert outside.sum() == 96**3 - whole["image"].numel()
    assert patch["label"].sum() == whole["label"].sum()
    corners = patch["image"][0][[0, -1], [0, -1], [0, -1]]
    assert bool((corners == -1024).all())


def test_the_same_seed_draws_the_same_patches_from_the_map_and_from_memory(tmp_path: Path) -> None:
    item = case(tmp_path, 1)
    mapped, again, other = draws(item, 5), draws(item, 5), draws(item, 6)
    held = draws(ReadVolumesd(READING)(item), 5)
    for one, two, three in zip(mapped, again, held, strict=True):
        for key in ("image", "label"):
            assert torch.equal(one[key].as_tensor(), two[key].as_tensor())
            assert torch.equal(one[key].as_tensor(), three[key].as_tensor())
            assert torch.allclose(one[key].affine, three[key].affine)
    assert any(
        not torch.equal(a["image"].affine, b["image"].affine) for a, b in zip(mapped, other, strict=True)
    )


def test_they_are_transforms_of_monai_and_work_in_its_loader(tmp_path: Path) -> None:
    pipeline = Compose(
        [
            RandPatchesd(READING, (16, 16, 16), count=2),
            ScaleIntensityRanged("image", -1000, 400, 0.0, 1.0, clip=True),
            RandFlipd(("image", "label"), prob=0.5, spatial_axis=0),
        ]
    )
    assert isinstance(RandPatchesd(READING, (4, 4, 4)), MapTransform | Transform)
    pipeline.set_random_state(seed=1)
    loader = DataLoader(Dataset([case(tmp_path, n) for n in range(3)], pipeline), batch_size=3)
    (batch,) = list(loader)
    # MONAI puts the patches of a batch's items side by side.
    assert batch["image"].shape == batch["label"].shape == (6, 1, 16, 16, 16)
    assert 0 <= batch["image"].min() < batch["image"].max() <= 1


@pytest.mark.parametrize("change", ["shape", "place"])
def test_a_label_map_of_another_grid_is_refused(change: str, tmp_path: Path) -> None:
    item = case(tmp_path, 1)
    moved = AFFINE.copy()
    moved[0, 3] += 1.0 if change == "place" else 0.0
    shape = SHAPE if change == "place" else (49, 44, 30)
    item["label"] = write(tmp_path / "other.nii", np.ones(shape, np.uint8), moved)
    with pytest.raises(GridError, match="draw it on that very image") as caught:
        draws(item, 1)
    assert caught.value.pht_error_code == "VOLUME_GRID"


def test_as_many_cases_are_held_as_fit_and_the_rest_are_read_through_the_map(tmp_path: Path) -> None:
    cases = [case(tmp_path, number) for number in range(4)]
    one = bytes_of(cases[0], READING)
    read = ReadVolumesd(READING)(cases[0])
    assert one == sum(read[key].numel() * read[key].element_size() for key in ("image", "label"))
    for room, count in ((0, 0), (one - 1, 0), (2 * one + 1, 2), (99 * one, 4)):
        data = cached(cases, READING, room)
        assert len(data) == 4
        assert [item["case"] for item in data] == ["c0", "c1", "c2", "c3"]
        assert [torch.is_tensor(item["image"]) for item in data] == [True] * count + [False] * (4 - count)
        for at in range(4):
            for ours, theirs in zip(draws(data[at], at), draws(cases[at], at), strict=True):
                assert torch.equal(ours["image"].as_tensor(), theirs["image"].as_tensor())
    # What is held was read once: the files may go.
    data = cached(cases, READING, 4 * one)
    Path(cases[0]["image"]).unlink()
    assert data[0]["image"].shape == read["image"].shape


def test_a_patch_of_a_held_volume_does_not_change_it(tmp_path: Path) -> None:
    data = cached([case(tmp_path, 1)], READING, 1 << 30)
    before = data[0]["image"].clone()
    for patch in draws(data[0], 1):
        patch["image"].as_tensor().fill_(7)
    assert torch.equal(data[0]["image"].as_tensor(), before.as_tensor())


@pytest.mark.parametrize(
    ("files", "lines", "expected"),
    [
        ({"memory.max": "1048576\n"}, "0::/\n", 1 << 20),
        ({"memory.max": "max\n", "a/b/memory.max": "2097152\n"}, "0::/a/b\n", 2 << 20),
        ({"memory/memory.limit_in_bytes": "3145728\n"}, "4:memory:/docker/x\n2:cpu:/\n", 3 << 20),
        ({"memory/docker/x/memory.limit_in_bytes": "4194304\n"}, "9:cpu,memory:/docker/x\n", 4 << 20),
        ({"memory.max": "not a number"}, "", None),
        ({}, "0::/\n", None),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, "4:memory:/\n", None),
    ],
)
def test_the_memory_limit_is_the_cgroups_or_the_machines(
    files: dict[str, str], lines: str, expected: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    (tmp_path / "named").write_text(lines)
    found = memory_limit_bytes(tmp_path / "cgroup", tmp_path / "named")
    if expected is None:
        # Of the machine, by another file of the kernel's.
        total = next(
            line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")
        )
        expected = int(total.split()[1]) << 10
    assert found == expected


def test_cases_that_fit_are_the_first_ones() -> None:
    assert cases_that_fit([], 10) == cases_that_fit([11], 10) == 0
    assert cases_that_fit([4, 4, 4, 1], 10) == 2
    assert caching.memory_limit_bytes() > 1 << 20
