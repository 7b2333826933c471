"""Painting over boxes of a frame, in stored values."""

from collections.abc import Iterable

import numpy as np

from station.pseudonymisation.pixels.boxes import Box
from station.pseudonymisation.pixels.decoding import Frame

_RIM = 3


def mask(frame: Frame, boxes: Iterable[Box]) -> None:
    """Paint each box with the middle value of the rim around it: one value, so that nothing of the text is left.

    Args:
        frame: stored values, changed in place.
        boxes: in pixels of the frame.
    """
    rows, columns = frame.shape
    for box in boxes:
        outer = box.grown(_RIM, rows, columns)
        around = frame[outer.top : outer.bottom, outer.left : outer.right]
        rim = np.ones(around.shape, dtype=bool)
        rim[box.top - outer.top : box.bottom - outer.top, box.left - outer.left : box.right - outer.left] = (
            False
        )
        values = around[rim] if rim.any() else around.ravel()
        # The value at the middle, not a mean: it is one that stands in the picture.
        frame[box.top : box.bottom, box.left : box.right] = np.sort(values, axis=None)[values.size // 2]
