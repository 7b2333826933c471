"""Augmentation by MONAI's transforms, where the images lie: on a GPU no image goes back to the host.

Mirrored, turned and scaled a little in one resampling, and brighter, darker, flatter or steeper, as scanners and exposures differ.
MONAI draws each image's few parameters from one seeded stream on the host, so a CPU and a GPU see the same changes.
"""

from monai.transforms import Compose, RandAffine, RandFlip, RandScaleIntensity, RandShiftIntensity
from torch import device


def augmentation(seed: int, image_size: int, place: device) -> Compose:
    """Return the random changes of one round, for images of shape (1, image_size, image_size), zero mean and unit variance."""
    transform = Compose(
        [
            RandFlip(prob=0.5, spatial_axis=0),
            RandAffine(
                prob=0.8,
                rotate_range=0.1,
                translate_range=image_size / 32,
                scale_range=0.1,
                padding_mode="border",
                cache_grid=False,
                device=place,
            ),
            RandScaleIntensity(prob=0.5, factors=0.15),
            RandShiftIntensity(prob=0.5, offsets=0.15),
        ]
    )
    transform.set_random_state(seed=seed)
    return transform
