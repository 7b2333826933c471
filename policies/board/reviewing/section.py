"""A heading and the lines under it, as people read them; and how things are counted in such lines."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Section:
    """One heading and its lines."""

    heading: str
    lines: tuple[str, ...]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural but for one.

    >>> counted(1200, "round")
    '1,200 rounds'
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
