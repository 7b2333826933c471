"""A frame as a detector sees it: grey from 0 to 1, white text bright, at a size at which letters have some pixels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from station.pseudonymisation.pixels.decoding import Frame

Grey = NDArray[np.float32]

_SHORTER_SIDE = 1024
_MOST_ENLARGED = 3.0
_TAILS = (0.05, 99.95)


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame in grey.

    Attributes:
        grey: (rows, columns) at the working size; 0 is the frame's darkest, 1 its brightest value.
        scale: working pixels per pixel of the frame.
    """

    grey: Grey
    scale: float


def picture_of(frame: Frame, *, inverted: bool) -> Picture:
    """Return a frame as a picture.

    Args:
        frame: stored values, (rows, columns).
        inverted: MONOCHROME1.
    """
    values = frame.astype(np.float32)
    low, high = np.percentile(values[:: _step(frame), :: _step(frame)], _TAILS)
    span = max(float(high - low), 1e-6)
    grey = np.clip((values - float(low)) / span, 0.0, 1.0)
    if inverted:
        grey = 1.0 - grey
    scale = min(_MOST_ENLARGED, _SHORTER_SIDE / min(frame.shape))
    if scale > 1.0:
        scale = float(np.ceil(scale))
        grey = np.clip(ndimage.zoom(grey, scale, order=3, mode="nearest", grid_mode=True), 0.0, 1.0)
    elif scale < 1.0:
        # A whole divisor: averaging blocks keeps thin strokes where picking single pixels would lose them.
        divisor = max(1, int(1.0 / scale))
        rows, columns = (side // divisor * divisor for side in grey.shape)
        blocks = grey[:rows, :columns].reshape(rows // divisor, divisor, columns // divisor, divisor)
        grey, scale = blocks.mean(axis=(1, 3)), 1.0 / divisor
    return Picture(np.ascontiguousarray(grey, dtype=np.float32), scale)


def _step(frame: Frame) -> int:
    return max(1, int(min(frame.shape)) // 1024)
