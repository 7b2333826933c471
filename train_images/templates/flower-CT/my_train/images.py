"""How an image is read, by MONAI: CT volumes.

Volumes are NIfTI in Hounsfield units, with the scanner's own affine and spacing.
"""

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

READ = Compose(
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
