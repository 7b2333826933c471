"""What of a table of counts is too small to leave, looked at by itself.

Pure. Invariants: no cell of one to (minimum - 1) patients leaves, nor a table from which a hidden cell follows, whoever knows the sum
of all and how cells are hidden. This holds for one table of one release.
"""

from collections.abc import Iterable, Sequence

from policies.aggregates import AggregateOutput
from policies.rows import HIDDEN

Lines = tuple[tuple[int, ...], ...]


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
