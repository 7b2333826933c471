"""Structures that have a side: what a mirrored patch is marked with, from the names that hospitals' label maps have."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segmentation_kit import CONFIG, SAMPLING, SHAPE, write_case, write_cohort

from algorithms.ct_segmentation import client_app
from algorithms.ct_segmentation.cohort import structures_of
from algorithms.ct_segmentation.sampling import patches
from algorithms.ct_segmentation.sides import mirrored_values

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")


def item(folder: Path) -> dict[str, Any]:
    """A volume of three structures along its first axis: 1, then 2, then 3."""
    label = np.zeros(SHAPE, np.uint8)
    for value, start in ((1, 8), (2, 22), (3, 36)):
        label[start : start + 8, 10:36, 6:20] = value
    entry = write_case(folder, "c1", label * 100.0, label)
    return {"image": str(folder / entry["image"]), "label": str(folder / entry["label"]), "case": "c1"}


def marks(folder: Path, mirrored: tuple[int, ...] | None, *, augment: bool = True) -> list[torch.Tensor]:
    sampling = replace(
        SAMPLING,
        classes=4,
        mirrored=mirrored,
        augment=augment,
        patches_per_case=12,
        share_about_structures=1.0,
    )
    drawn = patches([item(folder)], sampling, (1, 0), torch.device("cpu"))  # type: ignore[arg-type]
    return [label for _, label in drawn]


@pytest.mark.parametrize(
    ("structures", "found"),
    [
        (("nodule", "vessel"), (0, 1, 2)),
        (("left_lung", "heart", "right_lung"), (0, 3, 2, 1)),
        (("lobe_upper_left", "lobe_upper_right", "copyright"), (0, 2, 1, 3)),
        # The right lung has a middle lobe, and the left one none.
        (("lobe_middle_right", "nodule"), None),
    ],
)
def test_names_say_what_a_value_is_in_the_mirror(
    structures: tuple[str, ...], found: tuple[int, ...] | None
) -> None:
    assert mirrored_values(structures) == found


def test_a_mirrored_left_is_marked_as_a_right(tmp_path: Path) -> None:
    plain = marks(tmp_path, (0, 3, 2, 1), augment=False)
    swapped = torch.tensor([0, 3, 2, 1], dtype=torch.uint8)
    kept = mirrored = 0
    for before, after in zip(plain, marks(tmp_path, (0, 3, 2, 1)), strict=True):
        if torch.equal(before, after):
            kept += 1
        else:
            mirrored += 1
            assert torch.equal(swapped[before.long()].flip(1), after)
            assert after.dtype == before.dtype
    assert kept > 0
    assert mirrored > 0
    # Without sides the same patches are mirrored, and every value stays what it is.
    for before, after in zip(plain, marks(tmp_path, (0, 1, 2, 3)), strict=True):
        assert torch.equal(before, after) or torch.equal(before.flip(1), after)


def test_where_one_of_a_pair_is_alone_nothing_is_mirrored(tmp_path: Path) -> None:
    for before, after in zip(marks(tmp_path, None, augment=False), marks(tmp_path, None), strict=True):
        assert torch.equal(before, after)


def test_the_train_takes_sides_from_the_cohorts_own_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHT_DATA", str(write_cohort(tmp_path, {}, ["Left-Lung", "right lung"])))
    assert structures_of(tmp_path) == ("left_lung", "right_lung")
    assert client_app._sampling(dict(CONFIG)).mirrored == (0, 2, 1)
    write_cohort(tmp_path, {}, ["left-kidney"])
    assert client_app._sampling(dict(CONFIG)).mirrored is None
