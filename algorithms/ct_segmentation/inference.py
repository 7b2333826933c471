"""Whole volumes: a sliding window over the grid on which the network works, and back to the image's own voxels.

Windows overlap by a quarter and count by a Gaussian (MONAI's `sliding_window_inference`). What the network says is interpolated to the
image's own grid before the highest class is taken: a label map that was made on the coarse grid and enlarged would have its steps.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from nibabel.orientations import apply_orientation, ornt_transform
from numpy.typing import NDArray
from torch import nn

from algorithms.clientapp.precision import MixedPrecision
from algorithms.ct_segmentation.sampling import Sampling, windowed
from algorithms.volumes.grids import Grid
from algorithms.volumes.mapped import MappedVolume, open_volume
from algorithms.volumes.transforms import read_volume

_OVERLAP: Final = 0.25
_SLAB: Final = 16
"""Slices of the image that are interpolated at a time."""

LabelMap = NDArray[np.uint8]


@torch.inference_mode()
def logits_of(network: nn.Module, image: Path, sampling: Sampling, place: torch.device) -> torch.Tensor:
    """Return what the network says of a whole volume, on its own working grid.

    Args:
        network: holds the weights.
        image: a volume's file.
        sampling: the working grid, the window's shape, and the Hounsfield window.
        place: where to compute.

    Returns:
        float32. Shape (classes, x, y, z), in RAS order with the sampling's spacing.

    Raises:
        VolumeError: the file is none that can be mapped.
    """
    volume = read_volume(image, sampling.spacing_mm).as_tensor().to(place)
    with MixedPrecision(place).autocast():
        found = sliding_window_inference(
            windowed(volume, sampling.window_hu)[None],
            roi_size=sampling.patch,
            sw_batch_size=4 if place.type == "cuda" else 1,
            predictor=network,
            overlap=_OVERLAP,
            mode="gaussian",
            # Beyond the volume is air, which the window makes 0.
            cval=0.0,
        )
    return torch.as_tensor(found)[0].float()


def label_map(logits: torch.Tensor, image: Path, sampling: Sampling) -> LabelMap:
    """Return the class of each voxel of an image, as the image's file has them.

    Args:
        logits: of `logits_of`. Shape (classes, x, y, z).
        image: the file that they are of.
        sampling: whose working grid they lie on.

    Returns:
        Axes as stored in the file: the shape that NIfTI readers give.

    Raises:
        VolumeError: the file is none that can be mapped.
    """
    volume = open_volume(image)
    return in_stored_order(classes_on(volume.grid, logits, sampling.spacing_mm), volume)


@torch.inference_mode()
def classes_on(grid: Grid, logits: torch.Tensor, spacing_mm: tuple[float, float, float]) -> LabelMap:
    """Return the highest class at each voxel of a grid, interpolating between those of the working grid.

    Args:
        grid: the image's own, in RAS order.
        logits: on the working grid of that spacing. Shape (classes, x, y, z).
        spacing_mm: of the working grid, whose first voxel is the grid's own.
    """
    ratio = np.divide(grid.spacing_mm, spacing_mm)
    found = np.empty(grid.shape, np.uint8)
    for first in range(0, grid.shape[2], _SLAB):
        last = min(first + _SLAB, grid.shape[2])
        values = logits
        # The slab's axis first: the others then have its few slices alone to interpolate.
        for axis, places in ((2, (first, last)), (1, (0, grid.shape[1])), (0, (0, grid.shape[0]))):
            values = _along(values, axis + 1, torch.arange(*places, dtype=torch.float64) * ratio[axis])
        found[:, :, first:last] = values.argmax(0).to(torch.uint8).cpu().numpy()
    return found


def in_stored_order(found: LabelMap, volume: MappedVolume) -> LabelMap:
    """Return a map that lies in RAS order with its axes as a volume's file has them."""
    ras = np.array([[0, 1], [1, 1], [2, 1]], dtype=np.float64)
    back: Any = ornt_transform(ras, volume.stored_grid.orientation)  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(apply_orientation(found, back))  # type: ignore[no-untyped-call]


def _along(values: torch.Tensor, axis: int, places: torch.Tensor) -> torch.Tensor:
    whole = values.shape[axis]
    places = places.clamp(0, whole - 1)
    low = places.floor().long()
    share = (places - low).to(values)
    shape = [1] * values.ndim
    shape[axis] = -1
    low = low.to(values.device)
    below = values.index_select(axis, low)
    above = values.index_select(axis, (low + 1).clamp(max=whole - 1))
    return torch.lerp(below, above, share.reshape(shape))
