"""What a round trains on: patches of every training case, drawn anew each epoch, the same at every restart.

What is drawn from a case follows from the seed, the round, the epoch and the case's own name, and from nothing else: not from which other
cases a hospital has, nor from how they are read. So a broken round that is run again is the same round, and a case gives the same patches
wherever it lies: the sum over hospitals can be compared with one place that has all cases.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, RandFlipd, RandScaleIntensityd, RandShiftIntensityd
from torch.utils.data import Dataset

from algorithms.clientapp.failures import TrainError
from algorithms.volumes.grids import Shape
from algorithms.volumes.transforms import RandPatchesd, Reading

KEYS = ("image", "label")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How patches are drawn.

    Attributes:
        spacing_mm: of the grid on which the network works.
        patch: its shape there, voxels.
        patches_per_case: in each epoch.
        share_about_structures: of patches about a marked structure, 0 to 1.
        window_hu: what becomes 0 and 1; outside it is cut.
        augment: mirror patches left to right, and vary contrast and brightness a little.
        seed: of everything drawn.
        classes: of the label maps, background counted.
        mirrored: what each value of a label map is in the mirror, background first (`sides`); empty where all stay what they are, None
            where nothing is mirrored.
    """

    spacing_mm: tuple[float, float, float]
    patch: Shape
    patches_per_case: int
    share_about_structures: float
    window_hu: tuple[float, float]
    augment: bool
    seed: int
    classes: int
    mirrored: tuple[int, ...] | None = ()

    @property
    def reading(self) -> Reading:
        """How volumes are read."""
        return Reading(spacing_mm=self.spacing_mm)


def windowed(hounsfield: torch.Tensor, window_hu: tuple[float, float]) -> torch.Tensor:
    """Return Hounsfield units as float32 between 0 and 1, the same at every hospital."""
    low, high = window_hu
    return ((hounsfield.float() - low) / (high - low)).clamp_(0.0, 1.0)


def patches(
    cases: Dataset[Any], sampling: Sampling, moment: tuple[int, int], place: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield an epoch's patches, case by case, cases in an order of the epoch.

    Args:
        cases: items with `image`, `label` and `case`, from paths or from memory.
        sampling: how.
        moment: round and epoch, from 1 and 0.
        place: where they are wanted.

    Yields:
        An image, float32 of 0 to 1, and its label map, uint8. Shape (1, *patch) each.

    Raises:
        VolumeError: a file is none that can be mapped, or a label map not on its image's grid.
        TrainError: MASK_VALUES, a label map has a value that stands for no structure.
    """
    draw = RandPatchesd(
        sampling.reading,
        sampling.patch,
        count=sampling.patches_per_case,
        share_about_structures=sampling.share_about_structures,
    )
    mirror = [] if sampling.mirrored is None else [_RandMirrord(sampling.mirrored, place)]
    vary = Compose(
        [
            *mirror,
            RandScaleIntensityd("image", factors=0.1, prob=0.3),
            RandShiftIntensityd("image", offsets=0.05, prob=0.3),
        ]
    )
    for index in order(len(cases), sampling.seed, moment):  # type: ignore[arg-type]  # torch's Dataset says no length
        item = cases[index]
        seed = seed_of(sampling.seed, *moment, str(item["case"]))
        draw.set_random_state(seed=seed)
        vary.set_random_state(seed=seed)
        for patch in draw(item):
            require_known(patch["label"].as_tensor(), sampling.classes)
            # Over to the device as whole numbers, a quarter of the bytes; all arithmetic is done there.
            moved = {key: _moved(patch[key].as_tensor(), place) for key in KEYS}
            moved["image"] = windowed(moved["image"], sampling.window_hu)
            if sampling.augment:
                moved = {key: torch.as_tensor(value) for key, value in vary(moved).items()}
            yield moved["image"], moved["label"]


class _RandMirrord(RandFlipd):
    """Mirrors left to right; values of structures that have a side change places with those of the other side."""

    def __init__(self, mirrored: tuple[int, ...], place: torch.device) -> None:
        super().__init__(KEYS, prob=0.5, spatial_axis=0)
        sided = any(value != at for at, value in enumerate(mirrored))
        self._values = torch.tensor(mirrored, dtype=torch.uint8, device=place) if sided else None

    def __call__(self, data: Any, lazy: bool | None = None) -> Any:  # noqa: ANN401 - MONAI's signature
        found = super().__call__(data, lazy)
        if self._do_transform and self._values is not None:
            found["label"] = self._values[torch.as_tensor(found["label"]).long()]
        return found


def require_known(labels: torch.Tensor, classes: int) -> None:
    """Refuse a label map with values that stand for nothing; a GPU would end the process over one.

    Raises:
        TrainError: MASK_VALUES.
    """
    if int(labels.max()) >= classes:
        raise TrainError(
            "MASK_VALUES", f"a label map has {int(labels.max())}, which stands for none of the cohort's masks"
        )


def order(count: int, seed: int, moment: tuple[int, int]) -> list[int]:
    """Return the order of the cases in an epoch."""
    return [int(at) for at in np.random.default_rng([seed, *moment]).permutation(count)]


def seed_of(*parts: int | str) -> int:
    """Return a seed that follows from all parts, below 2^32."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _moved(tensor: torch.Tensor, place: torch.device) -> torch.Tensor:
    if place.type != "cuda":
        return tensor
    return tensor.pin_memory().to(place, non_blocking=True)
