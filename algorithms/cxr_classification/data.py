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
from monai.utils import convert_to_tensor
from nibabel.filebasedimages import ImageFileError
from torch.utils.data import TensorDataset

from algorithms.clientapp.cohort import cases_of
from algorithms.clientapp.failures import TrainError
from algorithms.cxr_classification.findings import labels_of, named_findings

WHITE = 65535.0
"""The station writes radiographs as uint16, 0 black to 65535 white."""


@lru_cache(maxsize=16)
def load_split(folder: Path, split: str, image_size: int) -> TensorDataset:
    """Read one split.

    Args:
        folder: the cohort.
        split: `training`, `validation` or `testing`.
        image_size: pixels along each side.

    Returns:
        Images, float32 of shape (N, 1, image_size, image_size), normalised to zero mean and unit variance each; labels,
        float32 of shape (N, findings): 0, 1, or not a number where a case lacks that finding.

    Raises:
        TrainError: the cohort lists no case of this split, an image cannot be read or is none, or labels are none
            (`algorithms.cxr_classification.findings`).
    """
    cases = cases_of(folder, split)
    labels = torch.tensor(labels_of(folder, cases, named_findings()))
    read = Compose(
        [
            LoadImage(reader="NibabelReader", image_only=True, ensure_channel_first=False),
            EnsureChannelFirst(channel_dim="no_channel"),
            ScaleIntensityRange(a_min=0.0, a_max=WHITE, b_min=0.0, b_max=1.0),
            Resize(spatial_size=(image_size, image_size), mode="area"),
            NormalizeIntensity(),
        ]
    )
    images = torch.stack([_image(read, folder / case["image"], image_size) for case in cases])
    return TensorDataset(images.contiguous(), labels)


def _image(read: Compose, path: Path, image_size: int) -> torch.Tensor:
    try:
        # Without MONAI's metadata: a tensor that carries it makes every later operation slower.
        found: torch.Tensor = convert_to_tensor(read(path), dtype=torch.float32, track_meta=False)
    except (OSError, ValueError, RuntimeError, ImageFileError) as error:
        raise TrainError(
            "IMAGE_UNREADABLE", "an image of the cohort cannot be read as a radiograph"
        ) from error
    if found.shape != (1, image_size, image_size) or not torch.isfinite(found).all():
        raise TrainError(
            "IMAGE_UNREADABLE", "an image of the cohort is no radiograph: two axes, finite values"
        )
    return found
