"""Attack: counts that are only rounded are solved for; rounding is no protection of its own."""

import numpy as np
import pytest
from suppression_kit import Attacker, category, count_of, dealt_out, number, released, sum_of

BASE = 5
COLUMNS = [category("finding", 4), category("scanner", 3)]


def rows_of(counts: np.ndarray) -> list[dict[str, str]]:
    columns = counts.shape[1]
    return [{"finding": str(cell // columns), "scanner": str(cell % columns)} for cell in dealt_out(counts)]


WANTED = [count_of("finding"), count_of("scanner"), count_of("finding", "scanner")]


def test_numbers_rounded_one_by_one_add_up_to_the_exact_ones() -> None:
    """Four cells of two leave as 0, their sum of eight as 10: each is at most 2 and together they are at least 8."""
    counts = np.array([[2, 40, 33], [2, 25, 31], [2, 52, 27], [2, 29, 44]])
    tables = released(COLUMNS, WANTED, rows_of(counts), minimum_cell_count=1, count_rounding=BASE).tables
    assert [line[0] for line in tables["finding_scanner"]] == [0, 0, 0, 0]
    victim = Attacker(finding=4, scanner=3)
    for key, table in tables.items():
        victim.reads(table, *key.split("_"), base=BASE)
    for line in range(4):
        assert victim.interval(finding=line, scanner=0) == (2, 2)

    protected = released(COLUMNS, WANTED, rows_of(counts), count_rounding=BASE).tables
    attack = Attacker(finding=4, scanner=3)
    for key, table in protected.items():
        attack.reads(table, *key.split("_"), base=BASE)
    for line in range(4):
        low, high = attack.interval(finding=line, scanner=0)
        assert low == 0
        assert high >= 8


@pytest.mark.parametrize("base", [3, 5, 10])
def test_what_is_hidden_stays_hidden_when_the_rest_is_rounded(base: int) -> None:
    """Rounding after hiding only widens what can be: with rounded cells and exact margins nothing gets narrower."""
    counts = np.array([[31, 40, 22], [18, 27, 3], [25, 14, 35], [44, 19, 28]])
    intervals = []
    for rounding in (1, base):
        tables = released(COLUMNS, WANTED, rows_of(counts), count_rounding=rounding).tables
        attack = Attacker(finding=4, scanner=3)
        for name, axis in (("finding", 1), ("scanner", 0)):
            for code, total in enumerate(counts.sum(axis=axis)):
                attack.knows(int(total), **{name: code})
        attack.reads(tables["finding_scanner"], "finding", "scanner", base=rounding)
        intervals.append(attack.interval(finding=1, scanner=2))
    (exact_low, exact_high), (low, high) = intervals
    assert exact_low == low == 0
    assert high >= exact_high >= 10


def test_a_small_number_that_rounds_to_a_large_one_is_hidden_all_the_same() -> None:
    """9 would leave as 10, like a number that may: who knows that nothing below the minimum leaves is told a lie about it."""
    counts = np.array([[9, 40, 33], [26, 25, 31], [22, 52, 27], [29, 29, 44]])
    tables = released(COLUMNS, WANTED, rows_of(counts), count_rounding=10).tables
    assert tables["finding_scanner"][0][0] == -1


def test_a_sum_of_few_values_does_not_give_the_numbers_that_are_rounded() -> None:
    values = [1.0] * 60 + [2.0] * 43
    rows = [{"size": value} for value in values]
    columns, wanted = [number("size", 0.0, 5.0)], [sum_of("size")]
    rules = {"minimum_cell_count": 10, "dominance": {"p_percent": 5}}
    ((_, total, squares),) = released(columns, wanted, rows, **rules).tables["sum_size_all"]
    # Two equations, two numbers, whatever the number of all is rounded to.
    twos = (squares - total) / 2
    assert (total - 2 * twos, twos) == (60, 43)

    assert not released(columns, wanted, rows, count_rounding=10, **rules).tables
    many = [{"size": 1.0 + place % 17 / 5} for place in range(103)]
    assert released(columns, wanted, many, count_rounding=10, **rules).tables["sum_size_all"][0][0] == 100
