"""Which cells of the tables that one release tells together are told.

    tables of one split -> columns and patients they share (`population`)
      -> each column's own numbers: what is too small, and what would tell it (`lines`)
      -> each crosstab, with all margins known; a line whose number is hidden hides its cells (`crosstabs`)
      -> each table of sums: what few patients make up, and what would tell it (`sums`)
      -> links that those cannot see
      -> the gate (`audit`): what it does not pass is left out whole

Tables that share a column with equal bins share its numbers: a crosstab's margin is another table's line. With every margin taken
as known, what one crosstab hides tells nothing of another's cells, as long as tables do not close a circle (a by b, b by c, c by a):
for a chain of tables any tables with those margins can come from one set of patients. So of a circle in which something is hidden,
the table that closes it is left out. A column that joins others is in a circle as those (`circles`).

Pure, and in bounded time: `_CHOOSING` and `_ATTACKING` are steps, not seconds, so that the same tables give the same answer everywhere.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.refusals import RefusalCode
from station.egress.analyses.exact import NOWHERE, ExactTable
from station.egress.suppression.audit import crosstab_is_safe, line_is_safe
from station.egress.suppression.circles import closing_a_circle
from station.egress.suppression.crosstabs import hide_crosstab
from station.egress.suppression.flows import Allowance, OutOfWork, Work
from station.egress.suppression.likeness import NOBODY, bins_tell, isolates_few, sums_tell_few
from station.egress.suppression.lines import Mask, hide_line
from station.egress.suppression.population import Key, Population, is_outcome, keys_of
from station.egress.suppression.rules import Hidden, HidingRules, Values, sum_problem
from station.egress.suppression.shares import counts_tell, line_between, same_values_tell
from station.egress.suppression.sums import hide_sums, sums_are_safe

_CHOOSING: Final = 120_000_000
_ATTACKING: Final = 160_000_000
"""Steps for all tables of a split together; each may take its part, and what those before it left."""
_COMPARING: Final = 4_000_000
"""Pairs of cells that are looked at in comparing tables of different columns."""
_LINE: Final = 2_000_000
"""Steps for attacking one column."""

_SMALL: Final = RefusalCode.RELEASE_CELL_TOO_SMALL
_DOMINATED: Final = RefusalCode.RELEASE_DOMINATED

Cells = NDArray[np.int64]
Place = tuple[Key, ...]
"""The column, or the two columns in order, whose numbers a table tells."""


def hide(tables: Sequence[ExactTable], rules: HidingRules) -> Mapping[str, Hidden]:
    """Return what of each table may be told, by its key.

    Args:
        tables: all that one release tells; those of different splits have no patient in common.
        rules: the policy's.
    """
    hidden: dict[str, Hidden] = {}
    for split in dict.fromkeys(table.split for table in tables):
        hidden |= _Together([table for table in tables if table.split is split], rules).told()
    return hidden


class _Together:
    """The tables of one split."""

    def __init__(self, tables: Sequence[ExactTable], rules: HidingRules) -> None:
        self._tables, self._rules = tables, rules
        self._people = Population(tables)
        self._choosing, self._attacking = (
            Allowance(_CHOOSING, len(tables)),
            Allowance(_ATTACKING, len(tables)),
        )
        self._lines: dict[Key, Mask] = {}
        self._crosstabs: dict[Place, Mask | None] = {}
        self._columns = dict(self._people.columns)
        self._minimum: dict[Place, int] = {}

    def told(self) -> dict[str, Hidden]:
        found: dict[str, Hidden] = {}
        placed = {table.key: self._place(table) for table in self._tables if not is_outcome(table)}
        for pair in dict.fromkeys(
            place for place in placed.values() if place is not None and len(place) == 2
        ):
            self._hide_pair(pair)
        self._break_circles()
        for table in self._tables:
            if is_outcome(table):
                found[table.key] = self._outcomes(table)
            elif table.measure == "count":
                found[table.key] = _of(self._counts_told(table, placed[table.key]))
        # By name alone: other edges of the same column divide the same values.
        partly = {
            name
            for table in self._tables
            if table.measure == "count" and _is_partly(found[table.key])
            for name, _ in keys_of(table)
        }
        for table in self._tables:
            if table.measure == "quantiles":
                found[table.key] = _of(
                    None
                    if partly & {name for name, _ in keys_of(table)}
                    else np.ones(table.shape, dtype=bool)
                )
            elif table.measure == "sum":
                # Bins of a column whose numbers are hidden could be reckoned from its sums: of few values they are equations.
                counted = table.value_column in partly
                found[table.key] = _of(None) if counted else self._sums(table, placed[table.key])
        self._hide_likenesses(found)
        self._hide_same_cells(found, placed)
        self._hide_joined_circles(found)
        return found

    # -- where a table's numbers stand -------------------------------------------------------------------------

    def _place(self, table: ExactTable) -> Place | None:
        """Return the column, or the two columns, whose numbers a table tells; None where they are not the others' at all."""
        keys, people = keys_of(table), self._people
        everybody = bool((people.placed[table.key] == people.everybody).all())
        if table.measure == "quantiles":
            return None
        if not people.agrees(table) or any(d.bins < 1 for d in table.dimensions):
            return None
        place: Place | None = None
        if (
            len(keys) == 2
            and keys[0] != keys[1]
            and everybody
            and not any(self._columns[key].absent for key in keys)
        ):
            place = tuple(sorted(keys))
        elif len(keys) == 1:
            column = self._columns[keys[0]]
            in_bins = people.everybody & (column.codes < column.bins - column.absent)
            if bool((people.placed[table.key] == in_bins).all()):
                place = (keys[0],)
            elif not column.absent:
                place = self._with_presence(table, keys[0])
        elif len(keys) == 0:
            place = self._with_presence(table, None)
        if place is not None:
            self._raise_minimum(place, self._least(table))
        return place

    def _with_presence(self, table: ExactTable, key: Key | None) -> Place:
        present, column = self._people.presence(table)
        self._columns.setdefault(present, column)
        return (present,) if key is None else tuple(sorted((key, present)))

    def _raise_minimum(self, place: Place, minimum: int) -> None:
        for part in {place, *((key,) for key in place)}:
            self._minimum[part] = max(self._minimum.get(part, 1), minimum)

    def _least(self, table: ExactTable) -> int:
        """Return the minimum; of a cell of two each knows the other, so it is never two."""
        minimum = max(self._rules.minimum, table.minimum, 1)
        return 3 if minimum == 2 else minimum

    # -- counts ------------------------------------------------------------------------------------------------

    def _line(self, key: Key) -> Mask:
        """Return which bins of a column have a number that is told nowhere."""
        if key not in self._lines:
            counts = self._columns[key].counts(self._people.everybody)
            known = np.zeros(len(counts), dtype=bool)
            minimum = self._minimum[(key,)]
            hidden = hide_line(counts, minimum, known)
            if hidden is None or not line_is_safe(counts, hidden, minimum, known, Work(_LINE)):
                hidden = ~known
            self._lines[key] = hidden
        return self._lines[key]

    def _hide_pair(self, place: Place) -> None:
        first, second = place
        counts = self._people.crosstab(self._columns[first], self._columns[second])
        lines, columns, minimum = self._line(first), self._line(second), self._minimum[place]
        with self._choosing.part() as work:
            hidden = hide_crosstab(counts, minimum, lines, columns, work)
        with self._attacking.part() as work:
            if hidden is not None and not crosstab_is_safe(counts, hidden, minimum, lines, columns, work):
                hidden = None
        self._crosstabs[place] = hidden

    def _break_circles(self) -> None:
        """Leave out crosstabs that close a circle of columns in which something is hidden."""
        group = {key: key for pair in self._crosstabs for key in pair}

        def root(key: Key) -> Key:
            while group[key] != key:
                key = group[key]
            return key

        closing = []
        for (first, second), hidden in self._crosstabs.items():
            if hidden is None:
                continue
            if root(first) == root(second):
                closing.append((first, second))
            group[root(first)] = root(second)
        partly = {
            root(pair[0]) for pair, hidden in self._crosstabs.items() if hidden is not None and hidden.any()
        }
        for pair in closing:
            if root(pair[0]) in partly:
                self._crosstabs[pair] = None

    def _counts_told(self, table: ExactTable, place: Place | None) -> Mask | None:
        """Return which numbers of patients of a table may be told."""
        if place is None:
            return None
        if len(place) == 1:
            column = self._columns[place[0]]
            return ~self._line(place[0])[: column.bins - column.absent][
                : table.shape[0] * table.shape[1]
            ].reshape(table.shape)
        hidden = self._crosstabs[place]
        if hidden is None:
            return None
        keys = keys_of(table)
        if len(keys) == 2:
            return ~(hidden if keys == place else hidden.T).reshape(table.shape)
        inside = hidden[0] if place[0] not in keys else hidden[:, 0]
        return ~inside[: table.shape[0] * table.shape[1]].reshape(table.shape)

    def _outcomes(self, table: ExactTable) -> Hidden:
        """Return what may be told of how containers ended; whose rows are counted in other tables is known from their sums."""
        cells, counts, minimum = self._people.cells(table), table.counts.ravel(), self._least(table)
        known = np.array([
            bool(self._people.everybody.any()) and bool(((cells == cell) == self._people.everybody).all())
            for cell in range(len(counts))
        ])  # fmt: skip
        hidden = hide_line(counts, minimum, known)
        if hidden is None or not line_is_safe(counts, hidden, minimum, known, Work(_LINE)):
            return _of(None)
        return _of(~hidden.reshape(table.shape))

    # -- sums --------------------------------------------------------------------------------------------------

    def _sums(self, table: ExactTable, place: Place | None) -> Hidden:
        counted = self._counts_told(table, place)
        if counted is None or table.shape[1] != 1 or len(keys_of(table)) > 1:
            return _of(None)
        lines = self._values_by_line(table)
        minimum, bounds, dominance = self._least(table), table.bounds, self._rules.dominance
        if self._bins_tell(table):
            return Hidden(None, _DOMINATED)
        hidden = hide_sums(lines, ~counted.ravel(), minimum, bounds, dominance)
        dominated = any(sum_problem(line, minimum, bounds, dominance) is _DOMINATED for line in lines)
        if hidden is None or not sums_are_safe(lines, hidden, minimum, bounds, dominance):
            return Hidden(None, _DOMINATED if dominated else _SMALL)
        return Hidden(
            ~hidden.reshape(table.shape), None if not hidden.any() else _DOMINATED if dominated else _SMALL
        )

    def _bins_tell(self, table: ExactTable) -> bool:
        """Whether counts of the summed column's own bins leave too little open of what one bin adds."""
        counted = [other for other in self._tables if other.measure == "count"]
        values, bounds = self._people.values(table), table.bounds
        for other in counted:
            keys = keys_of(other)
            own = [key for key in keys if key[0] == table.value_column and key[1]]
            if not own or bounds is None:
                continue
            lines = [self._people.placed[table.key]]
            if set(keys_of(table)) & set(keys):
                cells = self._people.cells(table)
                lines += [cells == line for line in range(table.shape[0])]
            bins, ends = self._columns[own[0]].codes, (bounds[0], *own[0][1], bounds[1])
            if any(
                bins_tell(values[line], bins[line], ends, self._least(table), self._rules.dominance)
                for line in lines
            ):
                return True
        return False

    def _values_by_line(self, table: ExactTable) -> list[Values]:
        cells, values = self._people.cells(table), self._people.values(table)
        return [values[cells == line] for line in range(table.shape[0])]

    def _hide_likenesses(self, found: dict[str, Hidden]) -> None:
        """Leave out a table of sums that differs from an earlier one by what few patients have."""
        sums = [table for table in self._tables if table.measure == "sum"]
        counts = [table for table in self._tables if table.measure == "count" and not is_outcome(table)]
        for number, table in enumerate(sums):
            for other in [*counts, *sums[:number]]:
                mine, others = found[table.key].told, found[other.key].told
                if mine is None or others is None:
                    continue
                cells, other_cells = self._told_in(table, mine), self._told_in(other, others)
                if (
                    self._follow(table, cells, other, other_cells)
                    or (other.measure == "sum" and self._follow(other, other_cells, table, cells))
                    or (other.measure == "sum" and self._are_alike(table, cells, other, other_cells))
                ):
                    found[table.key] = Hidden(None, _DOMINATED)

    def _told_in(self, table: ExactTable, told: Mask) -> Cells:
        """Return each patient's cell of a table, or `NOBODY` where nothing is told of it."""
        cells = self._people.cells(table)
        return np.where((cells != NOWHERE) & told.ravel()[np.maximum(cells, 0)], cells, NOBODY)

    def _follow(self, table: ExactTable, cells: Cells, other: ExactTable, other_cells: Cells) -> bool:
        """Whether the values of a sum follow, but for few, from the cells of another table."""
        summed, minimum = cells != NOBODY, max(self._least(table), self._least(other))
        values = self._people.values(table)[summed]
        return counts_tell(values, other_cells[summed], minimum, self._rules.dominance)

    def _hide_same_cells(self, found: dict[str, Hidden], placed: Mapping[str, Place | None]) -> None:
        """Leave out a table whose told cells are nearly those of an earlier one with other columns."""
        accepted: dict[Place, Cells] = {}
        work = Work(_COMPARING)
        for table in self._tables:
            place = placed.get(table.key)
            if place is None or found[table.key].told is None:
                continue
            parts = {
                part: self._told_cells(part) for part in {place, *((key,) for key in place)} - accepted.keys()
            }
            minimum = self._minimum[place]
            try:
                alike = any(
                    isolates_few(accepted[other], cells, max(minimum, self._minimum[other]), work)
                    for part, cells in sorted(parts.items())
                    for other in accepted
                    if not set(part) & set(other)
                )
            except OutOfWork:
                alike = True
            if alike:
                found[table.key] = _of(None)
            else:
                accepted |= parts

    def _hide_joined_circles(self, found: dict[str, Hidden]) -> None:
        """Leave out what closes a circle over the columns that others are joined of."""
        told = [t for t in self._tables if not is_outcome(t) and found[t.key].told is not None]
        for key in closing_a_circle(told, {table.key: _is_partly(found[table.key]) for table in told}):
            found[key] = _of(None)

    def _told_cells(self, place: Place) -> Cells:
        """Return each patient's cell of a column or a crosstab, or `NOBODY` where its number is told nowhere."""
        first = self._columns[place[0]]
        if len(place) == 1:
            cells, hidden = first.codes, self._line(place[0])
        else:
            second, crosstab = self._columns[place[1]], self._crosstabs[place]
            cells = first.codes * second.bins + second.codes
            hidden = np.zeros(first.bins * second.bins, dtype=bool) if crosstab is None else crosstab.ravel()
        told = np.where(hidden[cells], NOBODY, cells)
        return told[self._people.everybody]

    def _are_alike(self, table: ExactTable, cells: Cells, other: ExactTable, other_cells: Cells) -> bool:
        minimum = max(self._least(table), self._least(other))
        mine, others = self._people.values(table), self._people.values(other)
        both = (cells != NOBODY) & (other_cells != NOBODY)
        line = line_between(mine[both], others[both]) if int(both.sum()) >= minimum else None
        if line is not None:
            slope, offset = line
            values = np.where(cells != NOBODY, mine, (others - offset) / slope)
            if same_values_tell(
                cells, other_cells, values, minimum, self._rules.dominance, zero=-offset / slope
            ):
                return True
        if table.value_column == other.value_column:
            return False
        either = self._people.placed[table.key] | self._people.placed[other.key]
        groups = [either]
        if keys_of(table) == keys_of(other):
            mine_at, others_at = self._people.cells(table), self._people.cells(other)
            groups += [(mine_at == number) | (others_at == number) for number in range(table.shape[0])]
        return any(
            sums_tell_few(others[group], mine[group], minimum, self._rules.dominance) for group in groups
        )


def _is_partly(hidden: Hidden) -> bool:
    return hidden.told is not None and not bool(hidden.told.all())


def _of(told: Mask | None) -> Hidden:
    if told is None or not told.any():
        return Hidden(None, _SMALL)
    return Hidden(told, None if bool(told.all()) else _SMALL)
