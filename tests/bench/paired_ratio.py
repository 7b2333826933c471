"""Two things timed in turn, A B B A, so that a drift of the machine meets both alike; their ratio, and what may be said of it. Pure.

A ratio of one such block is the geometric mean of what is compared in it. Told is the median over blocks with an interval between two of the
blocks' own ratios, which is right whatever their distribution (order statistics; Conover, Practical Nonparametric Statistics, 3.2): on
a machine that others use too, the slowest blocks lie far out, and a mean's interval would believe them.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

CONFIDENCE: Final = 0.95


class Verdict(StrEnum):
    """Whether a ratio reaches its limit."""

    WITHIN = "within"
    BEYOND = "beyond"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Block:
    """Two measurements of each side: A B B A or B A A B. Any unit of which less is better."""

    inside: tuple[float, float]
    outside: tuple[float, float]

    @property
    def ratio(self) -> float:
        """How much of the outside's throughput the inside reaches.

        >>> Block(inside=(2.0, 2.0), outside=(1.0, 1.0)).ratio
        0.5
        """
        return math.sqrt(math.prod(self.outside) / math.prod(self.inside))


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio over blocks.

    Attributes:
        median: of the blocks' ratios.
        low, high: between which the true median lies, at `confidence`; 0 and infinity where there are too few blocks to say.
        confidence: of the interval, at least `CONFIDENCE` where there is one, else 0.
        least, most: of the blocks' ratios.
        blocks: how many.
    """

    median: float
    low: float
    high: float
    confidence: float
    least: float
    most: float
    blocks: int

    def verdict(self, limit: float) -> Verdict:
        """Hold it to the least that it must be: the whole interval says so, or nothing does."""
        if self.low >= limit:
            return Verdict.WITHIN
        return Verdict.BEYOND if self.high < limit else Verdict.UNDECIDED


def ratio_over(ratios: Sequence[float]) -> Ratio:
    """Return what the blocks say together.

    Raises:
        ValueError: there are none.
    """
    if not ratios:
        raise ValueError("no blocks")
    ordered = sorted(ratios)
    rank, confidence = _rank(len(ordered))
    low, high = (ordered[rank], ordered[-1 - rank]) if rank >= 0 else (0.0, math.inf)
    return Ratio(statistics.median(ordered), low, high, confidence, ordered[0], ordered[-1], len(ordered))


def _rank(count: int) -> tuple[int, float]:
    """Return which of the ordered ratios, counted from both ends, bound the median, and how surely.

    A true median has each ratio above it or below it by the toss of a coin.

    >>> _rank(5), _rank(6), _rank(12)
    ((-1, 0.0), (0, 0.96875), (2, 0.96142578125))
    """
    found, confidence, tail = -1, 0.0, 0
    for rank in range(count // 2):
        tail += math.comb(count, rank)
        surely = 1 - 2 * tail / 2**count
        if surely < CONFIDENCE:
            break
        found, confidence = rank, surely
    return found, confidence
