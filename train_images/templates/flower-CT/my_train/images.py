"""The station's cohort, read by MONAI: CT volumes with a label each.

`datalist.json` is in the Decathlon form; volumes are NIfTI in Hounsfield units, with the
scanner's own affine and spacing. Outside a container PHT_DATA says where the cohort lies.
"""

import os
from functools import lru_cache
from pathlib import Path

from monai.data import CacheDataset, load_decathlon_datalist
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    ResizeWithPadOrCropd,
    ScaleIntensityRanged,
    Spacingd,
)

SPATIAL_DIMS = 3
SHAPE = (48, 48, 32)
"""Voxels along each side that the network sees."""

SPACING_MM = (8.0, 8.0, 8.0)
"""Scanners differ: every volume is resampled to this before it is cut to SHAPE."""

_READ = Compose(
    [
        LoadImaged("image", reader="NibabelReader", image_only=True),
        EnsureChannelFirstd("image", channel_dim="no_channel"),
        Orientationd("image", axcodes="RAS", labels=None),
        Spacingd("image", pixdim=SPACING_MM, mode="bilinear"),
        ScaleIntensityRanged(
            "image", a_min=-1000.0, a_max=400.0, b_min=0.0, b_max=1.0, clip=True
        ),
        ResizeWithPadOrCropd("image", spatial_size=SHAPE),
    ]
)


class TooFewImagesError(ValueError):
    """A split has nothing to work on; train.yaml declares the code."""

    pht_error_code = "TOO_FEW_IMAGES"


@lru_cache(maxsize=4)
def load_split(split: str) -> CacheDataset:
    """Read `training` or `validation` once and keep it.

    Items have `image`, (1, *SHAPE), and `label`, 0 or 1.

    Raises:
        TooFewImagesError: there are fewer than two.
    """
    folder = Path(os.environ.get("PHT_DATA", "/train/data"))
    cases = load_decathlon_datalist(
        folder / "datalist.json", is_segmentation=False, data_list_key=split
    )
    if len(cases) < 2:
        raise TooFewImagesError(split)
    return CacheDataset(cases, _READ, num_workers=1, progress=False)
