"""How well scores tell two classes apart, from patients counted per bin of their score. Pure.

Of two patients in one bin nobody knows who scored higher. They count as equal (a half), and beside that figure stands between which
two values the area lies for sure: had all such pairs been told apart wrongly, or rightly.

A hidden cell is open, but the number of patients of its class is mostly told by another table. The patients that are then missing lie in
the hidden cells, nobody knows in which: each figure is worked out with all of them in the lowest and in the highest of these, and no
other division goes beyond, since every figure here only grows, or only falls, as a class's scores rise.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from train_images.told.intervals import Figure, on_logit_scale, share

Bins = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ClassScores:
    """The patients of one class, from the lowest bin to the highest.

    Attributes:
        lowest, highest: patients per bin, with those in hidden cells as low or as high as they can be.
        hidden: how many cells are hidden.
    """

    lowest: Bins
    highest: Bins
    hidden: int = 0

    @property
    def patients(self) -> float:
        """How many there are."""
        return sum(self.lowest)

    @property
    def exact(self) -> bool:
        """Whether nothing is open."""
        return self.lowest == self.highest

    def from_bin(self, number: int) -> tuple[float, float]:
        """Return the least and the most patients in this bin and above."""
        return sum(self.lowest[number:]), sum(self.highest[number:])


def settle(cells: Sequence[float | None], total: float | None) -> ClassScores | None:
    """Return a class's scores from its told cells.

    Args:
        cells: patients per bin; None is hidden.
        total: of the class; None where it is not told.

    Returns:
        None where cells are hidden, and how many are in them cannot be said.

    >>> settle((3, None, None, 7), 12)
    ClassScores(lowest=(3, 2, 0, 7), highest=(3, 0, 2, 7), hidden=2)
    >>> settle((3, None), None) is None
    True
    """
    places = [number for number, cell in enumerate(cells) if cell is None]
    told = [0.0 if cell is None else cell for cell in cells]
    if not places:
        return ClassScores(tuple(told), tuple(told))
    rest = -1.0 if total is None else total - sum(told)
    if rest < 0:
        return None

    def filled(place: int) -> Bins:
        return tuple(cell + rest if number == place else cell for number, cell in enumerate(_whole(told)))

    return ClassScores(filled(places[0]), filled(places[-1]), len(places))


def _whole(cells: Iterable[float]) -> list[float]:
    return [int(cell) if float(cell).is_integer() else cell for cell in cells]


def together(parts: Sequence[ClassScores]) -> ClassScores:
    """Return several stations' patients of one class together."""
    return ClassScores(
        tuple(map(sum, zip(*(part.lowest for part in parts), strict=True))),
        tuple(map(sum, zip(*(part.highest for part in parts), strict=True))),
        sum(part.hidden for part in parts),
    )


def _wins(positives: Bins, negatives: Bins, tie: float) -> float:
    """Return of how many pairs the positive one scores higher; a pair in one bin counts as `tie`."""
    below = [0.0, *accumulate(negatives)][: len(negatives)]
    return sum(p * (under + tie * n) for p, n, under in zip(positives, negatives, below, strict=True))


def area(positives: ClassScores, negatives: ClassScores) -> tuple[Figure, float | None]:
    """Return the area under the ROC curve, and its variance (DeLong, DeLong and Clarke-Pearson 1988) where it has one.

    The area is the chance that a positive patient scores higher than a negative one, ties as a half; the interval is that of scores
    which are known by their bins alone.
    """
    pairs = positives.patients * negatives.patients
    if pairs == 0:
        return Figure(None), None
    least = _wins(positives.lowest, negatives.highest, 0.0) / pairs
    most = _wins(positives.highest, negatives.lowest, 1.0) / pairs
    if not (positives.exact and negatives.exact):
        return Figure(None, least=least, most=most), None
    value = _wins(positives.lowest, negatives.lowest, 0.5) / pairs
    variance = _variance(positives.lowest, negatives.lowest, value)
    ends = None if variance is None else on_logit_scale(value, variance)
    low, high = ends or (None, None)
    return Figure(value, low, high, least, most), variance


def _variance(positives: Bins, negatives: Bins, value: float) -> float | None:
    """Return DeLong's variance: of each patient's share of the other class that they are above, or below, ties as a half."""
    m, n = sum(positives), sum(negatives)
    if m < 2 or n < 2:
        return None
    under = [0.0, *accumulate(negatives)]
    above = [0.0, *accumulate(reversed(positives))][::-1]
    of_positives = sum(
        count * ((under[b] + negatives[b] / 2) / n - value) ** 2 for b, count in enumerate(positives)
    )
    of_negatives = sum(
        count * ((above[b + 1] + positives[b] / 2) / m - value) ** 2 for b, count in enumerate(negatives)
    )
    return of_positives / (m - 1) / m + of_negatives / (n - 1) / n


@dataclass(frozen=True, slots=True)
class Confusion:
    """What a threshold comes to: scores on it and above are called positive; None is the one that was ordered."""

    threshold: float | None
    true_positives: Figure
    false_negatives: Figure
    false_positives: Figure
    true_negatives: Figure
    sensitivity: Figure
    specificity: Figure
    positive_predictive_value: Figure
    negative_predictive_value: Figure


def confusion(
    positives: ClassScores, negatives: ClassScores, number: int, threshold: float | None
) -> Confusion:
    """Return the confusion counts at the lower edge of a bin, with their shares.

    Args:
        positives: the one class.
        negatives: the other.
        number: the lowest bin that is called positive.
        threshold: its lower edge.
    """
    tp, fp = positives.from_bin(number), negatives.from_bin(number)
    fn = positives.patients - tp[1], positives.patients - tp[0]
    tn = negatives.patients - fp[1], negatives.patients - fp[0]
    return Confusion(
        threshold,
        _count(tp),
        _count(fn),
        _count(fp),
        _count(tn),
        _share(tp, fn),
        _share(tn, fp),
        _share(tp, fp),
        _share(tn, fn),
    )


def _count(found: tuple[float, float]) -> Figure:
    return Figure(found[0]) if found[0] == found[1] else Figure(None, least=found[0], most=found[1])


def _share(part: tuple[float, float], other: tuple[float, float]) -> Figure:
    """Return part / (part + other), each between its least and most."""
    if part[0] == part[1] and other[0] == other[1]:
        return share(part[0], part[0] + other[0])
    least = 0.0 if part[0] + other[1] == 0 else part[0] / (part[0] + other[1])
    most = 1.0 if part[1] + other[0] == 0 else part[1] / (part[1] + other[0])
    return Figure(None, least=least, most=most)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One bin of a reliability diagram: what was predicted, between two ends, and what was seen."""

    predicted_low: float
    predicted_high: float
    patients: float
    observed: Figure


@dataclass(frozen=True, slots=True)
class Calibration:
    """How predicted and observed shares agree; none where cells are hidden.

    Attributes:
        bins: the reliability table.
        expected_error: the expected calibration error (Naeini, Cooper and Hauskrecht 2015), between what it is at least and most, since
            a bin tells between which ends its predictions lie and not their mean.
        brier: the mean squared error of the scores (Brier 1950), likewise.
    """

    bins: tuple[ReliabilityBin, ...]
    expected_error: Figure
    brier: Figure


def calibration(positives: ClassScores, negatives: ClassScores, ends: Bins) -> Calibration | None:
    """Return the reliability table of scores that are probabilities, or None where a cell is hidden or nobody is there."""
    patients = positives.patients + negatives.patients
    if not (positives.exact and negatives.exact) or patients == 0:
        return None
    bins = []
    error, brier = [0.0, 0.0], [0.0, 0.0]
    for number, (yes, no) in enumerate(zip(positives.lowest, negatives.lowest, strict=True)):
        low, high = ends[number], ends[number + 1]
        bins.append(ReliabilityBin(low, high, yes + no, share(yes, yes + no)))
        if yes + no == 0:
            continue
        seen = yes / (yes + no)
        error[0] += (yes + no) / patients * max(low - seen, seen - high, 0.0)
        error[1] += (yes + no) / patients * max(abs(seen - low), abs(seen - high))
        brier[0] += (yes * (1 - high) ** 2 + no * low**2) / patients
        brier[1] += (yes * (1 - low) ** 2 + no * high**2) / patients
    return Calibration(
        tuple(bins),
        Figure(None, least=error[0], most=error[1]),
        Figure(None, least=brier[0], most=brier[1]),
    )
