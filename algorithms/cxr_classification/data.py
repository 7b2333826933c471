"""A station's cohort as tensors: read once, kept in memory for all rounds.

The layout is the field's own (a Decathlon `datalist.json` beside `images/*.nii`), read by MONAI's own transforms. A radiograph is
one channel, 0 to 1, resized to a square; the images of a few hundred patients at 128x128 are some megabytes.
"""

from functools import lru_cache
from pathlib import Path

import torch
from monai.transforms import (
    Compose,
    EnsureChannelFirst,
    LoadImage,
    NormalizeIntensity,
    Resize,
    ScaleIntensityRange,
)
from torch.utils.data import TensorDataset

from algorithms.clientapp.cohort import cases_of

WHITE = 65535.0
"""The station writes radiographs as uint16, 0 black to 65535 white."""


@lru_cache(maxsize=8)
def load_split(folder: Path, split: str, image_size: int) -> TensorDataset:
    """Read one split.

    Args:
        folder: the cohort.
        split: `training`, `validation` or `testing`.
        image_size: pixels along each side.

    Returns:
        Images, float32 of shape (N, 1, image_size, image_size), normalised to zero mean and unit variance each; labels,
        float32 of shape (N, 1), 0 or 1.

    Raises:
        ValueError: the cohort lists no case of this split.
    """
    cases = cases_of(folder, split)
    read = Compose(
        [
            LoadImage(reader="NibabelReader", image_only=True, ensure_channel_first=False),
            EnsureChannelFirst(channel_dim="no_channel"),
            ScaleIntensityRange(a_min=0.0, a_max=WHITE, b_min=0.0, b_max=1.0),
            Resize(spatial_size=(image_size, image_size), mode="area"),
            NormalizeIntensity(),
        ]
    )
    images = torch.stack([torch.as_tensor(read(folder / case["image"])).float() for case in cases])
    labels = torch.tensor([[float(case["label"])] for case in cases])
    return TensorDataset(images.contiguous(), labels)
