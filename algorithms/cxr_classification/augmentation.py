"""Augmentation by MONAI's transforms, where the images lie: on a GPU nothing goes back to the host.

Mirrored, turned and scaled a little in one resampling, and brighter, darker, flatter or steeper, as scanners and exposures differ.
MONAI draws each image's few parameters from one seeded stream on the host, so a CPU and a GPU see the same changes.
"""

import torch
from monai.transforms import Compose, RandAffine, RandFlip, RandScaleIntensity, RandShiftIntensity
from torch.nn import functional


def augmentation(seed: int, image_size: int) -> Compose:
    """Return the random changes of one round, for images of shape (1, image_size, image_size), zero mean and unit variance."""
    transform = Compose(
        [
            RandFlip(prob=0.5, spatial_axis=0),
            _Moved(
                prob=0.8,
                rotate_range=0.1,
                translate_range=image_size / 32,
                scale_range=0.1,
                padding_mode="border",
                cache_grid=False,
            ),
            RandScaleIntensity(prob=0.5, factors=0.15),
            RandShiftIntensity(prob=0.5, offsets=0.15),
        ]
    )
    transform.set_random_state(seed=seed)
    return transform


class _Moved(RandAffine):
    """MONAI's `RandAffine` of square images, with its draws and its result, that makes each image's matrix on the host.

    MONAI makes it on the device and reads it back twice for every image.
    """

    def __call__(self, img: torch.Tensor, *_: object, **__: object) -> torch.Tensor:  # type: ignore[override]
        self.randomize()
        if not self._do_transform:
            return img
        self.rand_affine_grid(img.shape[1:], randomize=True, lazy=True)
        rows = torch.as_tensor(self.rand_affine_grid.get_transformation_matrix(), dtype=torch.float32)
        # MONAI's axes are in the array's order and count pixels from the middle; torch's are x, y, and half a side is 1.
        matrix = rows[[1, 0]][:, [1, 0, 2]]
        matrix[:, 2] *= 2 / img.shape[-1]
        size = [1, *img.shape]
        grid = functional.affine_grid(
            matrix[None].to(img.device, non_blocking=True), size, align_corners=False
        )
        return functional.grid_sample(
            img[None], grid, padding_mode=str(self.padding_mode), align_corners=False
        )[0]
