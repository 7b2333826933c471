"""Tables that close a circle over the columns that others are joined of, whatever the joined ones are called.

A table of `label` with `sex` in one column, one of `label` by `scanner` and one of `sex` by `scanner` are a circle, which no name shows:
what one hides is bounded by the others. Tables hang together without a circle where their sets of columns are acyclic as Graham (1979)
and Yu and Özsoyoğlu (1979) reduce them: columns of one set alone go, and sets within others, until nothing is left. Pure.
"""

from collections.abc import Mapping, Sequence

from station.egress.analyses.exact import ExactTable

Columns = frozenset[str]


def closing_a_circle(tables: Sequence[ExactTable], partly: Mapping[str, bool]) -> list[str]:
    """Return the keys of the tables that close a circle in which something is hidden, in no order.

    Args:
        tables: those of one split that are told, whole or partly; without a joined column among them nothing is found here.
        partly: by key, whether something of the table is hidden.
    """
    if not any(dimension.of for table in tables for dimension in table.dimensions):
        return []
    found = _within_others(tables, partly)
    left = [table for table in tables if table.key not in found]
    sets = {table.key: _columns(table) for table in left}
    kept: list[Columns] = []
    for table in left:
        mine = sets[table.key]
        reach = _together(mine, list(sets.values()))
        hides = any(partly[key] for key, columns in sets.items() if columns & reach)
        if hides and not is_acyclic([*kept, mine]):
            found.append(table.key)
        else:
            kept.append(mine)
    return found


def _within_others(tables: Sequence[ExactTable], partly: Mapping[str, bool]) -> list[str]:
    """Return the keys of partly hidden tables of a joined column whose parts others tell apart: those are margins that it was not held to."""
    found: list[str] = []
    for name, of in {(d.column, d.of) for table in tables for d in table.dimensions if d.of}:
        mine = [table.key for table in tables if any(d.column == name for d in table.dimensions)]
        others = {_columns(table) & frozenset(of) for table in tables if table.key not in mine} - {
            frozenset()
        }
        apart = [each for each in others if not any(each < other for other in others)]
        if len(apart) > 1 and any(partly[key] for key in mine):
            found += mine
    return found


def is_acyclic(sets: Sequence[Columns]) -> bool:
    """Whether sets of columns hang together without a circle.

    >>> is_acyclic([frozenset("ab"), frozenset("bc"), frozenset("abd")]), is_acyclic([frozenset("ab"), frozenset("bc"), frozenset("ac")])
    (True, False)
    """
    left = list(sets)
    while True:
        often = [name for columns in left for name in columns]
        shared = [frozenset(name for name in columns if often.count(name) > 1) for columns in left]
        rest = [
            columns
            for number, columns in enumerate(shared)
            if columns
            and not any(
                columns < other or (columns == other and at < number) for at, other in enumerate(shared)
            )
        ]
        if rest == left:
            return not left
        left = rest


def _columns(table: ExactTable) -> Columns:
    return frozenset(
        name
        for dimension in table.dimensions
        if dimension.bins > 1
        for name in dimension.of or (dimension.column,)
    )


def _together(columns: Columns, sets: Sequence[Columns]) -> Columns:
    """Return all columns that hang together with these, over any number of tables."""
    while True:
        more = columns.union(*(each for each in sets if each & columns))
        if more == columns:
            return columns
        columns = more
