"""Attack: a hidden cell is had by subtraction, from the told cells beside it and sums that everybody knows."""

from typing import Any

import numpy as np
import pytest
from suppression_kit import Attacker, category, count_of, dealt_out, released

MINIMUM = 10
COLUMNS = [category("finding", 4), category("scanner", 3)]
STUDY = np.array([[31, 40, 22], [18, 27, 3], [25, 14, 35], [44, 19, 28]])
"""Patients by finding and scanner: three have finding 1 and were seen by scanner 2."""
SMALL = {"finding": 1, "scanner": 2}


def rows_of(counts: Any) -> list[dict[str, str]]:
    columns = counts.shape[1]
    return [{"finding": str(cell // columns), "scanner": str(cell % columns)} for cell in dealt_out(counts)]


def attacker(counts: Any, *, margins: bool = True) -> Attacker:
    """Somebody with the hospital's yearly report: how many of each finding, and of each scanner."""
    solver = Attacker(finding=counts.shape[0], scanner=counts.shape[1])
    solver.knows(int(counts.sum()))
    if margins:
        for name, axis in (("finding", 1), ("scanner", 0)):
            for code, total in enumerate(counts.sum(axis=axis)):
                solver.knows(int(total), **{name: code})
    return solver


def told(counts: Any, **rules: Any) -> Any:
    return released(COLUMNS, [count_of("finding", "scanner")], rows_of(counts), **rules).tables.get(
        "finding_scanner"
    )


def test_from_one_line_and_its_sum() -> None:
    # Only what is small is hidden: one subtraction, and it is known.
    naive = np.where((STUDY > 0) & (STUDY < MINIMUM), -1, STUDY)
    victim = attacker(STUDY)
    victim.reads(naive, "finding", "scanner")
    assert victim.interval(**SMALL) == (3, 3)

    table = told(STUDY)
    assert table[1][2] == -1
    solver = attacker(STUDY)
    solver.reads(table, "finding", "scanner")
    low, high = solver.interval(**SMALL)
    assert low == 0
    assert high >= MINIMUM


def test_from_two_lines_less_two_columns() -> None:
    """Two cells are hidden in every line and column, and still one follows (as in sdcTable's own example)."""
    counts = np.array([[30, 47, 64, 89], [90, 124, 5, 31], [92, 100, 59, 85], [800, 991, 651, 685]])
    naive = counts.copy()
    for place in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 1), (2, 3), (3, 1), (3, 3)):
        naive[place] = -1
    solver = attacker(counts)
    solver.reads(naive, "finding", "scanner")
    assert solver.interval(finding=0, scanner=1) == (47, 47)

    columns = [category("finding", 4), category("scanner", 4)]
    release = released(columns, [count_of("finding", "scanner")], rows_of(counts))
    solver = attacker(counts)
    solver.reads(release.tables["finding_scanner"], "finding", "scanner")
    low, high = solver.interval(finding=1, scanner=2)
    assert low == 0
    assert high >= MINIMUM


def test_from_a_line_that_is_small_altogether() -> None:
    """A rare finding: its own number is nobody's to know, so it may not follow from those of the others."""
    counts = np.array([[31, 40, 22], [2, 0, 1], [25, 14, 35], [44, 19, 28]])
    naive = np.where(counts < MINIMUM, -1, counts)
    solver = attacker(counts, margins=False)
    for code, total in enumerate(counts.sum(axis=0)):
        solver.knows(int(total), scanner=code)
    solver.reads(naive, "finding", "scanner")
    assert solver.interval(finding=1) == (3, 3)

    solver = attacker(counts, margins=False)
    for code, total in enumerate(counts.sum(axis=0)):
        solver.knows(int(total), scanner=code)
    solver.reads(told(counts), "finding", "scanner")
    low, high = solver.interval(finding=1)
    assert low == 0
    assert high >= MINIMUM


@pytest.mark.parametrize("seed", range(12))
def test_from_any_table_at_all(seed: int) -> None:
    """Random tables: of every small cell of a table that leaves, what solving leaves open is what the margins leave."""
    generator = np.random.default_rng(seed)
    counts = generator.poisson(generator.gamma(2, 14, size=(4, 3)))
    table = told(counts)
    if table is None:
        return
    solver, before = attacker(counts), attacker(counts)
    solver.reads(table, "finding", "scanner")
    for (line, column), count in np.ndenumerate(counts):
        if 0 < count < MINIMUM:
            place = {"finding": line, "scanner": column}
            low, high = solver.interval(**place)
            margins_low, margins_high = before.interval(**place)
            assert low == margins_low
            assert high >= min(MINIMUM, margins_high)


def test_the_random_tables_are_not_all_left_out() -> None:
    tables = []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        tables.append(told(generator.poisson(generator.gamma(2, 14, size=(4, 3)))))
    partly = [table for table in tables if table is not None and any(-1 in line for line in table)]
    assert len(partly) >= 3
