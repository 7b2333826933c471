"""What a station makes of a map train's rows: patients counted per bin, and what of it is too small to leave.

    row of one patient -> bounded -> counted -> hidden where too few -> rounded -> table

Pure. A row is counted as it comes and not kept, so memory does not grow with patients. Invariants: what no schema accepts
is counted as a failure and nothing of it is read; no cell of one to (minimum - 1) patients leaves, nor a table from which a
hidden cell follows, whoever knows the sum of all and how cells are hidden.

This holds for one release. Two orders that count at different times differ by who came and who withdrew in between, which
a bin that is told once as empty and once hidden shows too: differences between releases are not held back here. Those,
dominance, sums and quantiles, and suppression that hides as little as can be have their place between `suppressed` and `rounded`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from policies.manifest import AggregateOutput, Split, TrainManifest
from policies.rows import ANSWERED, FAILURES, HIDDEN, MAX_PATIENTS, OUTCOME, Cell, RowSchema, bin_of

Lines = tuple[tuple[int, ...], ...]

_ROW: Final = "row"


@dataclass(slots=True)
class Tally:
    """Patients counted so far under one manifest.

    Attributes:
        manifest: a map train's.
        counts: per aggregate, the cells that are not empty.
        outcomes: per split, how the program ended for how many.
    """

    manifest: TrainManifest
    counts: dict[str, Counter[tuple[int, int]]] = field(default_factory=dict)
    outcomes: dict[Split, Counter[str]] = field(default_factory=dict)

    def answered(self, split: Split, answer: object) -> bool:
        """Count one patient's answer; returns whether it was a row.

        Args:
            split: the patient's.
            answer: untrusted.
        """
        schema = self.manifest.outputs.rows
        row = None if schema is None else schema.read(answer)
        if row is None or schema is None:
            self.failed(split, _ROW)
            return False
        self._end(split, ANSWERED)
        for item in self.manifest.outputs.aggregates:
            if item.split is split and item.column != OUTCOME:
                self.counts.setdefault(item.key, Counter())[_place(item, schema, row)] += 1
        return True

    def failed(self, split: Split, how: str) -> None:
        """Count one patient without a row; `how` is a declared error code, or one of `policies.rows.FAILURES`."""
        known = (*self.manifest.error_codes, *FAILURES)
        self._end(split, how if how in known else FAILURES[0])

    def _end(self, split: Split, how: str) -> None:
        self.outcomes.setdefault(split, Counter())[how] += 1

    @property
    def failures(self) -> int:
        """How many patients gave no row."""
        return sum(self.ends.values()) - self.ends[ANSWERED]

    @property
    def ends(self) -> Counter[str]:
        """How the program ended, over all splits."""
        return sum(self.outcomes.values(), Counter())

    def patients(self, item: AggregateOutput) -> int:
        """Return how many patients an aggregate counts."""
        ends = self.outcomes.get(item.split, Counter())
        return sum(ends.values()) if item.column == OUTCOME else ends[ANSWERED]

    def table(self, item: AggregateOutput) -> Lines:
        """Return an aggregate's exact counts, line after line."""
        lines = self.manifest.aggregate_lines(item)
        if item.column == OUTCOME:
            ends = self.outcomes.get(item.split, Counter())
            return tuple((ends[name],) for name in lines)
        counts = self.counts.get(item.key, Counter())
        width = len(self.manifest.aggregate_columns(item))
        return tuple(tuple(counts[line, cell] for cell in range(width)) for line in range(len(lines)))


def _place(item: AggregateOutput, schema: RowSchema, row: dict[str, Cell]) -> tuple[int, int]:
    column, by = schema.column(item.column), schema.column(item.by or "")
    line = 0 if column is None else bin_of(column, item.edges, row[column.name])
    return line, 0 if by is None else bin_of(by, (), row[by.name])


def suppressed(exact: Lines, minimum: int) -> Lines | None:
    """Hide what is too small, and with it what would tell it; None where then nothing is left to tell.

    1. A table without a cell of one to (minimum - 1) patients is told as it is, empty cells too.
    2. Of any other, every cell below the minimum is hidden, empty ones too: that a cell is hidden does not say that somebody is in it.
    3. With them the next smallest, all that are equal at once, until the hidden ones differ and are `minimum` patients together.

    Nothing that is hidden follows from what is told, whoever knows the number of all and these rules: with the hidden numbers
    dealt out to the hidden cells in any other way the same would be told, and they are not all alike.

    A cell that leaves less than `minimum` patients outside it is hidden by the same rule: those outside are the small cells.

    >>> suppressed(((12,), (3,), (20,), (0,)), 10)
    ((-1,), (-1,), (20,), (-1,))
    >>> suppressed(((97,), (3,)), 10) is None
    True
    """
    cells = [cell for line in exact for cell in line]
    if not any(0 < cell < minimum for cell in cells):
        return exact
    told = sorted({cell for cell in cells if cell >= minimum})
    hidden = [cell for cell in cells if cell < minimum]
    while told and (len(set(hidden)) < 2 or sum(hidden) < minimum):
        smallest = told.pop(0)
        hidden += [cell for cell in cells if cell == smallest]
    if not told:
        return None
    return tuple(tuple(cell if cell >= told[0] else HIDDEN for cell in line) for line in exact)


def outcomes_told(names: Sequence[str], exact: Lines, granted: frozenset[str], minimum: int) -> Lines | None:
    """Hide what is too small of how containers ended; a code that the policy does not grant is a crash.

    Its line stays, always zero: everybody knows that it is, so it hides nothing of the others.

    >>> outcomes_told(("answered", "NO_LUNG", "crash"), ((40,), (12,), (1,)), frozenset(), 10)
    ((40,), (0,), (13,))
    """
    kept = [name in granted or name in (ANSWERED, *FAILURES) for name in names]
    withheld = sum(line[0] for line, keep in zip(exact, kept, strict=True) if not keep)
    lines = tuple(
        (line[0] + withheld,) if name == FAILURES[0] else line
        for name, line, keep in zip(names, exact, kept, strict=True)
        if keep
    )
    table = suppressed(lines, minimum)
    if table is None:
        return None
    told = iter(table)
    return tuple(next(told) if keep else (0,) for keep in kept)


def rounded(table: Lines, base: int) -> Lines:
    """Round counts to the nearest multiple, halves up; what is hidden stays hidden.

    >>> rounded(((12, -1), (17, 0)), 5)
    ((10, -1), (15, 0))
    """
    return tuple(
        tuple(cell if cell == HIDDEN else (cell + base // 2) // base * base for cell in line)
        for line in table
    )


def told_together(items: Iterable[AggregateOutput]) -> frozenset[str]:
    """Return the aggregates that another one of the same patients shares a column with.

    What such a one hides could be told by the other's sums over the shared column, so it hides itself whole.
    """
    every: Sequence[AggregateOutput] = tuple(items)
    return frozenset(
        one.key
        for one in every
        for other in every
        if one is not other and one.split is other.split and _columns(one) & _columns(other)
    )


def _columns(item: AggregateOutput) -> frozenset[str]:
    return frozenset(name for name in (item.column, item.by) if name is not None)


def countable(tally: Tally) -> bool:
    """Whether there are no more patients than the board's bound on bits counts with."""
    return sum(tally.ends.values()) <= MAX_PATIENTS
