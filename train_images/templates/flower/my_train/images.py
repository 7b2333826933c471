"""How an image is read, by MONAI: radiographs as 2-D images.

Images are NIfTI of 16 bits, 0 black to 65535 white.
"""

from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    NormalizeIntensityd,
    Resized,
    ScaleIntensityRanged,
)

SPATIAL_DIMS = 2
SHAPE = (64, 64)
"""Pixels along each side that the network sees."""

READ = Compose(
    [
        LoadImaged("image", reader="NibabelReader", image_only=True),
        EnsureChannelFirstd("image", channel_dim="no_channel"),
        ScaleIntensityRanged("image", a_min=0.0, a_max=65535.0, b_min=0.0, b_max=1.0),
        Resized("image", spatial_size=SHAPE, mode="area"),
        NormalizeIntensityd("image"),
    ]
)
