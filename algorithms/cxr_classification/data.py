"""A station's cohort as tensors: read once, kept in memory for all rounds.

The layout is the field's own (a Decathlon `datalist.json` beside `images/*.nii`). A radiograph is one channel, 0 to 1, resized to a
square by MONAI's transforms; the images of a few hundred patients at 128x128 are some megabytes.

Files are read by nibabel as NIfTI and as nothing else: MONAI's `LoadImage` tries every other reader that is installed on a file that the
named one refuses, and a native one among them may end the process.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from monai.transforms import Compose, NormalizeIntensity, Resize, ScaleIntensityRange
from monai.utils import convert_to_tensor
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from algorithms.clientapp.cohort import cases_of
from algorithms.clientapp.failures import TrainError
from algorithms.cxr_classification.findings import labels_of, named_findings

_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    OverflowError,
    ImageFileError,
    HeaderDataError,
    HeaderTypeError,
    WrapStructError,
)

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
    prepare = Compose(
        [
            ScaleIntensityRange(a_min=0.0, a_max=WHITE, b_min=0.0, b_max=1.0),
            Resize(spatial_size=(image_size, image_size), mode="area"),
            NormalizeIntensity(),
        ]
    )
    # Without MONAI's metadata: a tensor that carries it makes every later operation slower.
    images = [
        convert_to_tensor(
            prepare(_pixels(folder / case["image"])[None]), dtype=torch.float32, track_meta=False
        )
        for case in cases
    ]
    return TensorDataset(torch.stack(images).contiguous(), labels)


def _pixels(path: Path) -> NDArray[np.float32]:
    """Return a radiograph. Shape (width, height), 0 to `WHITE`."""
    try:
        found = np.asarray(Nifti1Image.from_filename(path).dataobj, dtype=np.float32)
    except _UNREADABLE as error:
        raise TrainError("IMAGE_UNREADABLE", "an image of the cohort cannot be read as NIfTI") from error
    if found.ndim != 2 or found.size == 0 or not np.isfinite(found).all():
        raise TrainError(
            "IMAGE_UNREADABLE", "an image of the cohort is no radiograph: two axes of finite values"
        )
    return found
