"""Pictures of how the numbers of a release are spread: lines for a terminal, and a small SVG.

Both take what the local API gave. Names are declared names of tensors, yet escaped: they are no text of ours.
"""

import math
from collections.abc import Sequence
from typing import Any, Final
from xml.sax.saxutils import escape

from policies.console import visible

_BARS: Final = " ▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT, _GAP, _COLUMNS = 260, 110, 24, 3


def bars(counts: Sequence[int]) -> str:
    """Draw a histogram in one line; heights are logarithmic, so that few numbers far out are seen.

    >>> bars([0, 1, 1000, 1, 0])
    ' ▁█▁ '
    """
    highest = math.log1p(max(counts, default=0))
    if not highest:
        return _BARS[0] * len(counts)
    steps = len(_BARS) - 1
    return "".join(
        _BARS[math.ceil(math.log1p(count) / highest * steps)] if count else _BARS[0] for count in counts
    )


def svg(title: str, groups: Sequence[dict[str, Any]]) -> bytes:
    """Draw a histogram per group; heights are logarithmic."""
    rows = math.ceil(len(groups) / _COLUMNS)
    width = _COLUMNS * (_WIDTH + _GAP) + _GAP
    height = rows * (_HEIGHT + 2 * _GAP) + 2 * _GAP
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="11">'
        ),
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_GAP}" y="{_GAP}" font-size="14">{_text(title)}</text>',
    ]
    for place, group in enumerate(groups):
        left = _GAP + place % _COLUMNS * (_WIDTH + _GAP)
        top = 2 * _GAP + place // _COLUMNS * (_HEIGHT + 2 * _GAP)
        parts += _panel(group, left, top)
    return ("\n".join([*parts, "</svg>"]) + "\n").encode()


def _panel(group: dict[str, Any], left: int, top: int) -> list[str]:
    counts, edges = group["counts"], group["edges"]
    highest = math.log1p(max(counts, default=0)) or 1.0
    bar = _WIDTH / max(1, len(counts))
    base = top + _HEIGHT
    rects = [
        f'<rect x="{left + place * bar:.1f}" y="{base - tall:.1f}" width="{bar * 0.9:.1f}" height="{tall:.1f}" '
        'fill="#33608c"/>'
        for place, count in enumerate(counts)
        if (tall := math.log1p(count) / highest * (_HEIGHT - 20))
    ]
    label = f"{group['name']}: {group['elements']:,} numbers, norm {group['norm']:.3g}"
    return [
        f'<text x="{left}" y="{top + 10}">{_text(label)}</text>',
        *rects,
        f'<line x1="{left}" y1="{base}" x2="{left + _WIDTH}" y2="{base}" stroke="black"/>',
        f'<text x="{left}" y="{base + 14}">{float(edges[0]):.3g}</text>',
        f'<text x="{left + _WIDTH / 2}" y="{base + 14}" text-anchor="middle">0</text>',
        f'<text x="{left + _WIDTH}" y="{base + 14}" text-anchor="end">{float(edges[-1]):.3g}</text>',
    ]


def _text(value: str) -> str:
    return escape(visible(value).replace("\n", " ").replace("\t", " "))
