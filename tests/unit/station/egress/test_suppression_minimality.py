"""Every small table: who knows what leaves, every sum and these rules is still left with several numbers for a small cell."""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from suppression_kit import of_counts, rules

from station.egress.suppression import hide
from station.egress.suppression.crosstabs import hide_crosstab
from station.egress.suppression.flows import Work
from station.egress.suppression.lines import hide_line, room

Answer = tuple[int, ...] | None


def dealt(total: int, cells: int) -> Iterator[tuple[int, ...]]:
    """Go through every way to deal patients out to cells."""
    for bars in itertools.combinations(range(total + cells - 1), cells - 1):
        ends = (-1, *bars, total + cells - 1)
        yield tuple(high - low - 1 for low, high in itertools.pairwise(ends))


def told_of_line(cells: tuple[int, ...], minimum: int) -> Answer:
    hidden = hide_line(np.array(cells), minimum)
    if hidden is None:
        return None
    return tuple(-1 if hide else cell for cell, hide in zip(cells, hidden, strict=True))


def told_of_crosstab(cells: tuple[int, ...], shape: tuple[int, int], minimum: int) -> Answer:
    counts = np.array(cells).reshape(shape)
    lines, columns = hide_line(counts.sum(axis=1), minimum), hide_line(counts.sum(axis=0), minimum)
    if lines is None or columns is None:
        return None
    hidden = hide_crosstab(counts, minimum, lines, columns, Work(10**7))
    if hidden is None:
        return None
    return tuple(-1 if hide else cell for cell, hide in zip(cells, hidden.ravel(), strict=True))


@pytest.mark.parametrize("minimum", [3, 4, 5])
@pytest.mark.parametrize("length", [2, 3, 4])
def test_of_one_column(minimum: int, length: int) -> None:
    hidden_somewhere = False
    for total in range(4 * minimum if length < 4 else 3 * minimum):
        alike: defaultdict[Answer, list[tuple[int, ...]]] = defaultdict(list)
        for cells in dealt(total, length):
            alike[told_of_line(cells, minimum)].append(cells)
        for told, possible in alike.items():
            for place in range(length):
                numbers = {cells[place] for cells in possible}
                if not any(0 < number < minimum for number in numbers):
                    continue
                assert told is None or told[place] == -1
                # Left out whole tells that something is small; of all it may be, one number remains for nobody.
                needed = 1 if told is None else min(room(minimum), minimum - 2)
                assert max(numbers) - min(numbers) >= needed, (told, possible)
                hidden_somewhere |= told is not None
    assert hidden_somewhere or length == 2


@pytest.mark.parametrize(
    ("shape", "minimum", "totals"),
    [((2, 2), 3, range(20)), ((2, 2), 4, (22, 24)), ((2, 3), 3, (8, 13))],
)
def test_of_a_crosstab_with_every_margin_known(shape: tuple[int, int], minimum: int, totals: Any) -> None:
    partly = 0
    for total in totals:
        alike: defaultdict[tuple[Any, ...], list[tuple[int, ...]]] = defaultdict(list)
        for cells in dealt(total, shape[0] * shape[1]):
            counts = np.array(cells).reshape(shape)
            margins = tuple(counts.sum(axis=0).tolist()), tuple(counts.sum(axis=1).tolist())
            alike[told_of_crosstab(cells, shape, minimum), *margins].append(cells)
        for (told, columns, lines), possible in alike.items():
            partly += told is not None and -1 in told
            for place in range(shape[0] * shape[1]):
                line, column = divmod(place, shape[1])
                least, most = max(0, lines[line] + columns[column] - total), min(lines[line], columns[column])
                numbers = {cells[place] for cells in possible}
                if most == least or not any(0 < number < minimum for number in numbers):
                    continue  # the margins alone say it
                assert told is None or told[place] == -1
                needed = 1 if told is None else min(room(minimum), most - least)
                assert max(numbers) - min(numbers) >= needed, (told, columns, lines, possible)
    assert partly or shape == (2, 2)


def test_a_table_that_the_rules_would_nearly_tell_is_left_out() -> None:
    """Of these margins two tables alone would tell the same, one apart: seen by who knows how cells are chosen."""
    lines, columns, total = (9, 9), (5, 5, 8), 18
    alike: defaultdict[Answer, list[tuple[int, ...]]] = defaultdict(list)
    for first, second in itertools.product(range(6), range(6)):
        third = lines[0] - first - second
        if 0 <= third <= columns[2]:
            cells = (first, second, third, columns[0] - first, columns[1] - second, columns[2] - third)
            alike[told_of_crosstab(cells, (2, 3), 4)].append(cells)
    assert (2, 3, 4, 3, 2, 4) in alike[None]
    for told, possible in alike.items():
        for place in range(6) if told is not None else ():
            if told is not None and told[place] == -1:
                numbers = {cells[place] for cells in possible}
                least = max(0, lines[place // 3] + columns[place % 3] - total)
                open_by_margins = min(lines[place // 3], columns[place % 3]) - least
                assert max(numbers) - min(numbers) >= min(room(4), open_by_margins)


def test_a_minimum_of_two_is_held_as_three() -> None:
    """Of two patients in a cell each knows the other; and of cells of one the rules themselves would tell."""
    found = hide([of_counts([2, 30, 40, 7], "x")], rules(2))["table"].told
    assert found is not None
    assert found.ravel().tolist() == [False, True, True, False]
    assert hide([of_counts([1, 30], "x")], rules(1))["table"].code is None
