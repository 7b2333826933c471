"""How well a model did, from the tables that stations counted: of each station, of all together, and of each group of patients.

A table of scores is a count with edges, by a column whose categories say the class: `positive` and `negative`, or these joined with a
group (`positive.F`), as a combined column has them. A count of that column alone tells how many there are of each, which bounds what
hidden cells leave open. A count of `called_negative` and `called_positive` by such a column is a model's calls at the threshold that was
ordered. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from policies.errors import NotFoundError, UsageError
from policies.rows import JOINED, MISSING
from train_images.told.binned import (
    Calibration,
    ClassScores,
    Confusion,
    area,
    calibration,
    confusion,
    settle,
    together,
)
from train_images.told.intervals import Figure, on_logit_scale
from train_images.told.reading import Table, ToldResult, ToldTable

EVERYBODY: Final = "all"
_POSITIVE: Final = frozenset({"positive", "1", "true", "yes"})
_NEGATIVE: Final = frozenset({"negative", "0", "false", "no"})
CALLED: Final = ("called_negative", "called_positive")


@dataclass(frozen=True, slots=True)
class Performance:
    """How a model did on some patients.

    Attributes:
        positives, negatives: patients; None where hidden cells leave it open.
        hidden_cells: how many cells of the tables stations hid.
        auc: the area under the ROC curve.
        confusion: at each edge between bins, or at the one that was asked for.
        calibration: None where a cell is hidden, or scores are no probabilities.
    """

    positives: float | None
    negatives: float | None
    hidden_cells: int
    auc: Figure
    confusion: tuple[Confusion, ...] = ()
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True)
class GroupPerformance:
    """A group of patients.

    Attributes:
        group: its name, or `all`.
        stations: each station's, where single ones are told.
        pooled: of all patients as if they were one hospital's; None where it cannot be said.
        pooled_of: of how many stations that is.
        left_out: stations that did not tell the table, or whose hidden cells leave open even how many patients there are: they are
            not in the pooled figures.
        within: the area from pairs of patients of the same hospital alone, so that scores need not mean the same everywhere.
    """

    group: str
    stations: Mapping[str, Performance]
    pooled: Performance | None
    pooled_of: int
    left_out: tuple[str, ...]
    within: Figure | None


@dataclass(frozen=True, slots=True)
class TablePerformance:
    """What one table of scores says."""

    table: str
    column: str
    by: str
    groups: tuple[GroupPerformance, ...]


def performance_of(
    told: ToldResult, key: str | None = None, threshold: float | None = None
) -> tuple[TablePerformance, ...]:
    """Return what the tables of scores say.

    Args:
        told: a result's tables.
        key: of one table; None for all.
        threshold: one of the edges between bins; None for all of them.

    Raises:
        NotFoundError: there is no such table.
        UsageError: the threshold is no edge of a table.
    """
    found = [each for each in told.tables if _classes(each) and key in {None, each.key}]
    if not found:
        raise NotFoundError(
            f"the result has no table of scores by class{'' if key is None else f' called {key}'}",
            hint="That is a count of scores with edges, by a column of positive and negative.",
        )
    return tuple(_of_table(each, told, threshold) for each in found)


def _classes(table: ToldTable) -> dict[str, dict[bool, int]]:
    """Return the columns of each group's positives and negatives; empty where the table is none of scores or calls by class."""
    scores_or_calls = len(table.ends) > 2 or table.lines[:2] == CALLED
    if table.measure != "count" or table.by is None or not scores_or_calls:
        return {}
    groups: dict[str, dict[bool, int]] = {}
    for place, name in enumerate(table.columns):
        parts = name.split(JOINED)
        label = next((part for part in parts if part in _POSITIVE | _NEGATIVE), None)
        if name == MISSING or label is None:
            continue
        rest = list(parts)
        rest.remove(label)
        groups.setdefault(JOINED.join(rest) or EVERYBODY, {})[label in _POSITIVE] = place
    return {group: sides for group, sides in groups.items() if len(sides) == 2}


def _of_table(table: ToldTable, told: ToldResult, threshold: float | None) -> TablePerformance:
    edges = table.ends[1:-1]
    if threshold is not None and edges and threshold not in edges:
        raise UsageError(
            f"{threshold:g} is no edge of {table.key}",
            hint=f"Patients are counted between {', '.join(f'{edge:g}' for edge in edges)}.",
        )
    totals = next(
        (
            each
            for each in told.tables
            if each.measure == "count" and each.column == table.by and each.by is None
        ),
        None,
    )
    numbers = [n for n, edge in enumerate(edges, 1) if threshold in {None, edge}] if edges else [1]
    groups = tuple(
        _of_group(group, sides, _Scores(table, totals, tuple(numbers), told.exact))
        for group, sides in _classes(table).items()
    )
    return TablePerformance(table.key, table.column, table.by or "", groups)


@dataclass(frozen=True, slots=True)
class _Scores:
    """A table of scores, what there is of each class in all, and the thresholds that are wanted."""

    table: ToldTable
    totals: ToldTable | None
    numbers: tuple[int, ...]
    exact: bool

    @property
    def bins(self) -> int:
        """How many lines of the table are bins; what is missing follows them."""
        return len(self.table.ends) - 1 if self.table.ends else len(CALLED)

    def side(self, cells: Table, totals: Table | None, place: int) -> ClassScores | None:
        bins, unscored = cells[: self.bins], [line[place] for line in cells[self.bins :]]
        total = None
        if self.totals is not None and totals is not None:
            lines = dict(zip(self.totals.lines, totals, strict=True))
            total = lines.get(self.table.columns[place], (None,))[0]
        # Who has no score is of the class, and in no bin: where that number is hidden, nobody knows how many the bins hold.
        if total is not None:
            total = None if None in unscored else total - sum(each or 0 for each in unscored)
        return settle([line[place] for line in bins], total)

    def hidden(self, cells: Table, places: Sequence[int]) -> int:
        return sum(line[place] is None for line in cells[: self.bins] for place in places)


def _of_group(group: str, sides: Mapping[bool, int], scores: _Scores) -> GroupPerformance:
    table, totals = scores.table, scores.totals
    parts: dict[str, tuple[ClassScores, ClassScores] | None] = {}
    stations: dict[str, Performance] = {}
    for name, cells in table.stations.items():
        parts[name] = _both(scores, cells, None if totals is None else totals.stations.get(name), sides)
        stations[name] = _performance(parts[name], scores, scores.hidden(cells, list(sides.values())))
    known = [part for part in parts.values() if part is not None]
    untold = [] if totals is None else [name for name in totals.stations if name not in parts]
    left_out = tuple(sorted([*untold, *(name for name, part in parts.items() if part is None)]))
    if not table.stations and table.pooled is not None:
        part = _both(scores, table.pooled, None if totals is None else totals.pooled, sides)
        pooled = _performance(part, scores, scores.hidden(table.pooled, list(sides.values())))
        return GroupPerformance(group, {}, pooled, table.of, (), None)
    if not known:
        return GroupPerformance(group, stations, None, 0, left_out, None)
    both = together([part[0] for part in known]), together([part[1] for part in known])
    pooled = _performance(both, scores, both[0].hidden + both[1].hidden)
    within = _within(known) if scores.exact and len(known) > 1 else None
    return GroupPerformance(group, stations, pooled, len(known), left_out, within if table.ends else None)


def _both(
    scores: _Scores, cells: Table, totals: Table | None, sides: Mapping[bool, int]
) -> tuple[ClassScores, ClassScores] | None:
    positives, negatives = (scores.side(cells, totals, sides[which]) for which in (True, False))
    return None if positives is None or negatives is None else (positives, negatives)


def _performance(part: tuple[ClassScores, ClassScores] | None, scores: _Scores, hidden: int) -> Performance:
    if part is None:
        return Performance(None, None, hidden, Figure(None))
    positives, negatives = part
    ends = scores.table.ends
    confusions = tuple(
        confusion(positives, negatives, number, ends[number] if ends else None) for number in scores.numbers
    )
    counts = positives.patients, negatives.patients, hidden
    if not ends:
        return Performance(*counts, Figure(None), confusions)
    chances = (ends[0], ends[-1]) == (0.0, 1.0)
    return Performance(
        *counts,
        area(positives, negatives)[0],
        confusions,
        calibration(positives, negatives, ends) if chances else None,
    )


def _within(parts: Sequence[tuple[ClassScores, ClassScores]]) -> Figure | None:
    """Return the mean of the stations' areas, each by its number of pairs; hospitals' patients are apart, so variances add up."""
    weighted, spread, pairs = 0.0, 0.0, 0.0
    for positives, negatives in parts:
        figure, variance = area(positives, negatives)
        weight = positives.patients * negatives.patients
        if weight == 0:
            continue
        if figure.value is None or variance is None:
            return None
        weighted += weight * figure.value
        spread += weight * weight * variance
        pairs += weight
    if pairs == 0:
        return None
    ends = on_logit_scale(weighted / pairs, spread / pairs**2) or (None, None)
    return Figure(weighted / pairs, *ends)
