"""The station's own text detector: what is thin, sharp and stands in a row.

A top-hat takes away everything wider than a stroke (Serra 1982); what is left is cut at a level above the picture's own noise,
its connected components are held to the shape of a letter, and letters to the company of others. Bright and dark text,
along rows and along columns. It finds writing without reading it, which a reader (`reading_text`) cannot do where letters run together or
the font is strange; the reader finds what this takes for noise.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from station.pseudonymisation.pixels.boxes import Box, joined
from station.pseudonymisation.pixels.picture import Grey, Picture

_STROKE = 27
_LEVEL = 0.16
_NOISE = 5.0
_HEIGHTS = (9, 110)
_MAX_COMPONENTS = 6_000


@dataclass(frozen=True, slots=True)
class _Glyph:
    box: Box
    fill: float


def text_boxes(picture: Picture) -> list[Box]:
    """Return the boxes of what looks like a line of text, in working pixels."""
    found: list[Box] = []
    for bright in (True, False):
        hat = _hat(picture.grey, bright=bright)
        level = max(_LEVEL, _NOISE * 1.4826 * float(np.median(hat)))
        mask = hat > level
        found += _lines(mask)
        found += [Box(box.left, box.top, box.right, box.bottom) for box in _lines(mask.T)]
    return joined(found)


def _hat(grey: Grey, *, bright: bool) -> Grey:
    size = (_STROKE, _STROKE)
    if bright:
        opened = ndimage.grey_opening(grey, size=size)
        return np.asarray(grey - opened, dtype=np.float32)
    return np.asarray(ndimage.grey_closing(grey, size=size) - grey, dtype=np.float32)


def _lines(mask: NDArray[np.bool_]) -> list[Box]:
    labels, count = ndimage.label(mask, structure=np.ones((3, 3), dtype=np.int8))
    if not 0 < count <= _MAX_COMPONENTS:
        return []
    glyphs: list[_Glyph] = []
    words: list[Box] = []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is None:
            continue
        rows, columns = place
        box = Box(rows.start, columns.start, rows.stop, columns.stop)
        if not _HEIGHTS[0] <= box.height <= _HEIGHTS[1] or box.width > 12 * box.height:
            continue
        inside = labels[place] == number
        fill = float(inside.mean())
        if box.width <= 1.6 * box.height:
            if 0.1 <= fill <= 0.95 and box.width >= 2:
                glyphs.append(_Glyph(box, fill))
        elif _is_running_text(inside, fill):
            words.append(box)
    return [*_rows_of(glyphs), *words]


def _is_running_text(inside: NDArray[np.bool_], fill: float) -> bool:
    """Tell whether one wide component is letters that touch: many strokes side by side, at every height."""
    height, width = inside.shape
    if not 0.2 <= fill <= 0.85 or width < 1.8 * height:
        return False
    changes = np.abs(np.diff(inside.astype(np.int8), axis=1)).sum(axis=1)
    # A letter has about one stroke for every half of its height; a wire has one or two in all.
    wanted = max(5.0, 1.4 * width / height)
    return bool(np.median(changes[height // 6 : height - height // 6 or None]) >= wanted)


def _rows_of(glyphs: list[_Glyph]) -> list[Box]:
    """Group letters that stand side by side; three make a line."""
    remaining = sorted(glyphs, key=lambda glyph: glyph.box.left)
    rows: list[list[_Glyph]] = []
    for glyph in remaining:
        for row in reversed(rows):
            if _next_to(row[-1].box, glyph.box):
                row.append(glyph)
                break
        else:
            rows.append([glyph])
    found: list[Box] = []
    for row in rows:
        if len(row) >= 3 and _regular(row):
            box = row[0].box
            for other in row[1:]:
                box = box.around(other.box)
            found.append(box)
    return found


def _next_to(left: Box, right: Box) -> bool:
    tall, small = max(left.height, right.height), min(left.height, right.height)
    overlap = min(left.bottom, right.bottom) - max(left.top, right.top)
    gap = right.left - left.right
    return tall <= 1.7 * small and overlap >= 0.6 * small and -0.2 * tall <= gap <= 1.1 * tall


def _regular(row: list[_Glyph]) -> bool:
    """Tell whether heights and feet agree as letters of one line do."""
    heights = np.array([glyph.box.height for glyph in row], dtype=float)
    feet = np.array([glyph.box.bottom for glyph in row], dtype=float)
    slope = [abs(b.box.bottom - a.box.bottom) for a, b in pairwise(row)]
    middle = float(np.median(heights))
    return bool(heights.std() <= 0.3 * middle and feet.std() <= 0.35 * middle and max(slope) <= 0.6 * middle)
