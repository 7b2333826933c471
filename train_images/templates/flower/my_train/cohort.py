"""The station's cohort: the cases of a split, read as `images.py` says and kept in memory.

`datalist.json` is in the Decathlon form. Outside a container PHT_DATA says where the
cohort lies.
"""

import os
from functools import lru_cache
from pathlib import Path

from monai.data import CacheDataset, load_decathlon_datalist

from .images import READ


class TooFewImagesError(ValueError):
    """A split has nothing to work on; train.yaml declares the code."""

    pht_error_code = "TOO_FEW_IMAGES"


@lru_cache(maxsize=4)
def load_split(split: str) -> CacheDataset:
    """Read `training` or `validation` once and keep it.

    Items have `image`, (1, *images.SHAPE), and `label`, 0 or 1.

    Raises:
        TooFewImagesError: there are fewer than two.
    """
    folder = Path(os.environ.get("PHT_DATA", "/train/data"))
    cases = load_decathlon_datalist(
        folder / "datalist.json", is_segmentation=False, data_list_key=split
    )
    if len(cases) < 2:
        raise TooFewImagesError(split)
    return CacheDataset(cases, READ, num_workers=1, progress=False)
