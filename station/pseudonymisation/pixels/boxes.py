"""Rectangles of a picture, and what is done with several of them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """Rows `top` to `bottom` and columns `left` to `right`, the ends not included; pixels."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def area(self) -> int:
        """Pixels."""
        return max(0, self.height) * max(0, self.width)

    def grown(self, margin: int, rows: int, columns: int) -> "Box":
        """Return the box with a margin, inside the picture."""
        return Box(
            max(0, self.top - margin),
            max(0, self.left - margin),
            min(rows, self.bottom + margin),
            min(columns, self.right + margin),
        )

    def scaled(self, factor: float) -> "Box":
        """Return the box in a picture that is `factor` times as large, rounded outwards."""
        return Box(
            int(self.top * factor),
            int(self.left * factor),
            -int(-self.bottom * factor // 1),
            -int(-self.right * factor // 1),
        )

    def meets(self, other: "Box") -> bool:
        """Tell whether two boxes share a pixel."""
        return (
            self.top < other.bottom
            and other.top < self.bottom
            and self.left < other.right
            and other.left < self.right
        )

    def around(self, other: "Box") -> "Box":
        """Return the smallest box that holds both."""
        return Box(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )


def joined(boxes: Iterable[Box]) -> list[Box]:
    """Return boxes that do not meet: those that did are one."""
    found = sorted(boxes)
    while True:
        result: list[Box] = []
        for box in found:
            index = next((i for i, other in enumerate(result) if box.meets(other)), None)
            if index is None:
                result.append(box)
            else:
                result[index] = result[index].around(box)
        if len(result) == len(found):
            return sorted(result)
        found = result
