"""Which side a structure is on, by its name: what a patch that is mirrored left to right shows in its place. Pure.

In the mirror a left lung is a right one. Where both are structures of the label map, their values change places; where one of a pair is
there alone, its mirror image is a structure that nobody marked, and nothing may be mirrored.
"""

from collections.abc import Mapping, Sequence
from typing import Final

_OTHER: Final[Mapping[str, str]] = {"left": "right", "right": "left"}


def mirrored_values(structures: Sequence[str]) -> tuple[int, ...] | None:
    """Return what each value of a label map is in the mirror, background first; None where one of a pair is missing.

    Args:
        structures: names of metrics, 1 of the label map the first. Left and right are words of a name, between underscores.

    >>> mirrored_values(["nodule", "left_lung", "right_lung"]), mirrored_values(["kidney_left"])
    ((0, 1, 3, 2), None)
    """
    values = {name: value for value, name in enumerate(structures, start=1)}
    others = ("_".join(_OTHER.get(word, word) for word in name.split("_")) for name in structures)
    found = [values.get(other) for other in others]
    known = [value for value in found if value is not None]
    return (0, *known) if len(known) == len(found) else None
