"""The station's own text detector: what is thin, sharp and stands in a row.

A top-hat takes away everything wider than a stroke (Serra 1982); what is left is cut at a level above the picture's own noise,
its connected components are held to the shape of a letter, and letters to the company of others. Bright and dark text,
along rows and along columns. It finds writing without reading it, which a reader (`reading_text`) cannot do where letters run together or
the font is strange; the reader finds what this takes for noise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from station.pseudonymisation.pixels.boxes import Box, joined
from station.pseudonymisation.pixels.picture import Grey, Picture

_STROKE = 27
_TUNED_AT = 1024
"""The widest stroke, in a picture of so many rows; less in a smaller one."""
_LEVEL = 0.10
_NOISE = 4.5
_TILE = 64
_SAMPLED = 13
"""Of a tile's pixels one in so many tells its texture; prime to the tile's side, so that no column is favoured."""
_HEIGHTS = (5, 110)
_LOWEST = 2.7
_PEAK = 1.5
"""A stroke stands out by this much somewhere; the edge of a rib just reaches the level, in pieces."""
_FAINT = 0.55
_MAX_COMPONENTS = 12_000
_FURTHEST = 8
"""How far a line is followed to each side, in its own heights."""


@dataclass(frozen=True, slots=True)
class _Glyph:
    box: Box
    fill: float


def text_boxes(picture: Picture) -> list[Box]:
    """Return the boxes of what looks like a line of text, in working pixels."""
    found: list[Box] = []
    # No letter is less than three of the frame's own pixels high.
    stroke = round(_STROKE * min(1.0, picture.grey.shape[0] / _TUNED_AT))
    lowest = max(_HEIGHTS[0], round(_LOWEST * picture.scale))
    for bright in (True, False):
        strength = _strokes(picture.grey, stroke, bright=bright)
        found += _lines(strength, lowest)
        found += [Box(box.left, box.top, box.right, box.bottom) for box in _lines(strength.T, lowest)]
    return joined(found)


def _strokes(grey: Grey, stroke: int, *, bright: bool) -> Grey:
    """Return how much what is thin stands out, 1 at the level: a floor, or more where the neighbourhood is textured."""
    hat = _hat(grey, stroke, bright=bright)
    rows, columns = (-(-side // _TILE) for side in hat.shape)
    padded = np.pad(hat, ((0, rows * _TILE - hat.shape[0]), (0, columns * _TILE - hat.shape[1])), mode="edge")
    tiles = padded.reshape(rows, _TILE, columns, _TILE).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    # The lower half of a tile is its texture, with text in it or not.
    noise = ndimage.uniform_filter(np.percentile(tiles[:, :, ::_SAMPLED], 40, axis=2), size=3, mode="nearest")
    level = np.maximum(_LEVEL, _NOISE * noise)
    spread = np.kron(level, np.ones((_TILE, _TILE), dtype=np.float32))[: hat.shape[0], : hat.shape[1]]
    return np.asarray(hat / spread, dtype=np.float32)


def _hat(grey: Grey, stroke: int, *, bright: bool) -> Grey:
    size = (stroke, stroke)
    if bright:
        opened = ndimage.grey_opening(grey, size=size)
        return np.asarray(grey - opened, dtype=np.float32)
    return np.asarray(ndimage.grey_closing(grey, size=size) - grey, dtype=np.float32)


def _lines(strength: Grey, lowest: int) -> list[Box]:
    labels, count = ndimage.label(strength > 1.0, structure=np.ones((3, 3), dtype=np.int8))
    if not 0 < count <= _MAX_COMPONENTS:
        return []
    glyphs: list[_Glyph] = []
    words: list[Box] = []
    strokes: list[Box] = []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is None:
            continue
        rows, columns = place
        box = Box(rows.start, columns.start, rows.stop, columns.stop)
        if not lowest <= box.height <= _HEIGHTS[1] or box.width > 12 * box.height:
            continue
        inside = labels[place] == number
        if float(strength[place][inside].max()) < _PEAK:
            continue
        strokes.append(box)
        fill = float(inside.mean())
        if box.width <= 1.6 * box.height:
            if 0.1 <= fill <= 0.95 and box.width >= 2:
                glyphs.append(_Glyph(box, fill))
        elif _is_running_text(inside, fill):
            words.append(box)
    for row in _rows_of(glyphs):
        if len(row) >= 3 and _regular(row):
            box = row[0].box
            for other in row[1:]:
                box = box.around(other.box)
            words.append(box)
    if not words:
        return []
    faint = _faint_strokes(strength)
    return joined(_followed(line, strokes, faint) for line in words)


def _faint_strokes(strength: Grey) -> list[Box]:
    """Return strokes at half the level: where a line was found, its fainter letters are looked for."""
    labels, _ = ndimage.label(strength > _FAINT, structure=np.ones((3, 3), dtype=np.int8))
    return [
        Box(place[0].start, place[1].start, place[0].stop, place[1].stop)
        for place in ndimage.find_objects(labels)
        if place is not None
    ]


def _is_running_text(inside: NDArray[np.bool_], fill: float) -> bool:
    """Tell whether one wide component is letters that touch: many strokes side by side, at every height."""
    height, width = inside.shape
    if not 0.2 <= fill <= 0.85 or width < 1.8 * height:
        return False
    changes = np.abs(np.diff(inside.astype(np.int8), axis=1)).sum(axis=1)
    # A letter has about one stroke for every half of its height; a wire has one or two in all.
    wanted = max(5.0, 1.4 * width / height)
    return bool(np.median(changes[height // 6 : height - height // 6 or None]) >= wanted)


def _rows_of(glyphs: list[_Glyph]) -> list[list[_Glyph]]:
    """Group letters that stand side by side."""
    rows: list[list[_Glyph]] = []
    for glyph in sorted(glyphs, key=lambda glyph: glyph.box.left):
        for row in reversed(rows[-400:]):
            if _next_to(row[-1].box, glyph.box):
                row.append(glyph)
                break
        else:
            rows.append([glyph])
    return rows


def _followed(line: Box, strokes: list[Box], faint: list[Box]) -> Box:
    """Return a line with what stands next to it: initials, letters that are fainter than the rest.

    Only what stands on the line's own height is followed (of faint strokes, only what has a letter's shape), and not further
    than a name is long: beside a line there are ribs too.
    """
    height = line.height
    furthest = Box(line.top, line.left - _FURTHEST * height, line.bottom, line.right + _FURTHEST * height)
    letters = [
        box
        for widest, boxes in ((12.0, strokes), (1.6, faint))
        for box in boxes
        if 0.3 * height <= box.height <= 1.4 * height
        and box.width <= widest * height
        and min(box.bottom, line.bottom) - max(box.top, line.top) >= 0.6 * box.height
        and box.meets(furthest)
    ]
    while True:
        window = Box(line.top, line.left - 2 * height, line.bottom, line.right + 2 * height)
        beside = [box for box in letters if box.meets(window)]
        left = min([line.left, *(box.left for box in beside)])
        right = max([line.right, *(box.right for box in beside)])
        if (left, right) == (line.left, line.right):
            return line
        line = Box(line.top, left, line.bottom, right)


def _next_to(left: Box, right: Box) -> bool:
    tall, small = max(left.height, right.height), min(left.height, right.height)
    overlap = min(left.bottom, right.bottom) - max(left.top, right.top)
    gap = right.left - left.right
    return tall <= 1.7 * small and overlap >= 0.6 * small and -0.2 * tall <= gap <= 1.1 * tall


def _regular(row: list[_Glyph]) -> bool:
    """Tell whether heights and feet agree as letters of one line do."""
    heights = np.array([glyph.box.height for glyph in row], dtype=float)
    feet = np.array([glyph.box.bottom for glyph in row], dtype=float)
    heads = np.array([glyph.box.top for glyph in row], dtype=float)
    middle = float(np.median(heights))
    # Along columns a line may be read from above, and then its feet are where its heads would be.
    level = min((side.std(), float(np.abs(np.diff(side)).max())) for side in (feet, heads))
    return bool(heights.std() <= 0.3 * middle and level[0] <= 0.35 * middle and level[1] <= 0.6 * middle)
