"""Attack: a cell that one table hides is had from another table of the same patients."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from suppression_kit import RULES, Attacker, category, count_of, count_table, number, released, sum_of

from policies.refusals import RefusalCode
from station.egress.analyses.exact import Dimension, ExactTable, Measure
from station.egress.suppression import hide

MINIMUM = 10
A, B, C = category("a", 4), category("b", 3), category("c", 3)


def people(seed: int, *, rare: int = 3, size: int = 400) -> list[dict[str, Any]]:
    """Patients by three columns; few have the last bin of `a`."""
    generator = np.random.default_rng(seed)
    codes = [
        np.concatenate([np.full(rare, 3), generator.integers(0, 3, size - rare)]),
        generator.integers(0, 3, size), generator.integers(0, 3, size),
    ]  # fmt: skip
    return [
        dict(zip("abc", (str(code) for code in patient), strict=True)) for patient in zip(*codes, strict=True)
    ]


def counted(rows: list[dict[str, Any]], *columns: str) -> Any:
    sizes = {"a": 4, "b": 3, "c": 3}
    counts = np.zeros([sizes[name] for name in columns], dtype=int)
    for row in rows:
        counts[tuple(int(row[name]) for name in columns)] += 1
    return counts


def solver(rows: list[dict[str, Any]]) -> Attacker:
    made = Attacker(a=4, b=3, c=3)
    made.knows(len(rows))
    return made


def test_a_hidden_bin_from_the_margin_of_a_crosstab() -> None:
    rows = people(1)
    alone = released([A, B, C], [count_of("a")], rows).tables["a"]
    crosstab = counted(rows, "a", "b")
    victim = solver(rows)
    victim.reads(alone, "a")
    # The crosstab's own three other lines, had it hidden nothing for the sake of the table beside it.
    for place, count in np.ndenumerate(crosstab):
        if place[0] < 3:
            victim.knows(int(count), a=place[0], b=place[1])
    assert victim.interval(a=3) == (3, 3)

    tables = released([A, B, C], [count_of("a"), count_of("a", "b")], rows).tables
    assert any(cell >= 0 for line in tables["a_b"] for cell in line)
    attack = solver(rows)
    attack.reads(tables["a"], "a")
    attack.reads(tables["a_b"], "a", "b")
    for code, total in enumerate(counted(rows, "b")):
        attack.knows(int(total), b=code)
    low, high = attack.interval(a=3)
    assert low == 0
    assert high >= MINIMUM


@pytest.mark.parametrize("seed", range(6))
def test_from_two_crosstabs_that_share_a_column(seed: int) -> None:
    rows = people(seed, size=260)
    wanted = [count_of("a"), count_of("b"), count_of("a", "b"), count_of("b", "c")]
    tables = released([A, B, C], wanted, rows).tables
    assert "b" in tables
    attack = solver(rows)
    for key, table in tables.items():
        attack.reads(table, *key.split("_"))
    for code in range(4):
        low, high = attack.interval(a=code)
        if 0 < counted(rows, "a")[code] < MINIMUM:
            assert low == 0
            assert high >= MINIMUM
    for place, count in np.ndenumerate(counted(rows, "a", "b")):
        if 0 < count < MINIMUM and "a_b" in tables:
            low, high = attack.interval(a=place[0], b=place[1])
            assert low == 0
            assert high > low


def test_of_tables_in_a_circle_one_is_left_out() -> None:
    """Whoever has one `b` has the same `c`, as the second table shows: so the first tells what the third hides."""
    counts = [[12, 40, 33], [25, 30, 28], [31, 27, 35], [0, 0, 0]]
    rows = [
        {"a": str(a), "b": str(b), "c": str(b)}
        for a, line in enumerate(counts) for b, count in enumerate(line) for _ in range(count)
    ]  # fmt: skip
    stricter = count_of("a", "c", minimum_cell_count=20)
    chain = released([A, B, C], [count_of("a", "b"), count_of("b", "c")], rows).tables
    alone = released([A, B, C], [stricter], rows).tables["a_c"]
    assert alone[0][0] == -1
    victim = solver(rows)
    victim.reads(alone, "a", "c")
    low, high = victim.interval(a=0, c=0)
    assert low == 0
    assert high >= 20
    for key, table in chain.items():
        victim.reads(table, *key.split("_"))
    assert victim.interval(a=0, c=0) == (12, 12)

    release = released([A, B, C], [count_of("a", "b"), count_of("b", "c"), stricter], rows)
    assert set(release.tables) == {"a_b", "b_c"}
    assert [item.code for item in release.suppressed] == [RefusalCode.RELEASE_CELL_TOO_SMALL]


def test_a_sum_does_not_tell_the_number_of_patients_that_a_count_hides() -> None:
    rows = [{**row, "size": float(20 + 3 * place % 17)} for place, row in enumerate(people(2))]
    tables = released([A, B, C, number("size", 0, 100)], [count_of("a"), sum_of("size", "a")], rows).tables
    hidden = [line[0] == -1 for line in tables["a"]]
    assert hidden[3]
    assert sum(hidden) >= 2
    for line, left_out in zip(tables["sum_size_a"], hidden, strict=True):
        assert not left_out or tuple(line) == (-1, 0.0, 0.0)


def test_a_patient_left_out_of_one_of_two_sums() -> None:
    """A train that gives the second column no value for one patient: the difference of the sums is what that one has."""
    rows = [{"size": float(20 + 7 * place % 31), "other": float(20 + 7 * place % 31)} for place in range(60)]
    rows[17]["other"] = None
    exact = [sum(row[name] or 0.0 for row in rows) for name in ("size", "other")]
    assert exact[0] - exact[1] == rows[17]["size"]

    columns = [number("size", 0, 100), number("other", 0, 100, missing=True)]
    tables = released(columns, [sum_of("size"), sum_of("other")], rows).tables
    assert set(tables) == {"sum_size_all"}


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.5, 3.0)])
def test_a_column_that_is_like_another_but_for_one_patient(scale: float, shift: float) -> None:
    rows = [{"size": float(20 + 7 * place % 31)} for place in range(60)]
    for row in rows:
        row["other"] = row["size"] * scale + shift
    rows[17]["other"] = 0.0
    told = [sum(row[name] for row in rows) for name in ("size", "other")]
    assert (told[0] * scale + shift * 60 - told[1] - shift) / scale == pytest.approx(rows[17]["size"])

    columns = [number("size", 0, 100), number("other", 0, 100)]
    release = released(columns, [sum_of("size"), sum_of("other")], rows)
    assert set(release.tables) == {"sum_size_all"}
    assert [item.code for item in release.suppressed] == [RefusalCode.RELEASE_DOMINATED]


def test_one_content_under_two_names() -> None:
    """The second column puts the rare bin together with a large one: what the first hides is a difference of two told numbers."""
    rows = [{"a": str(code), "b": str(1 if code == 1 else 0)} for code in [0] * 3 + [1] * 20 + [2] * 30]
    first, second = counted(rows, "a"), counted(rows, "b")
    victim = Attacker(a=4, b=3)
    victim.knows(len(rows))
    alone = released([A, B], [count_of("a")], rows).tables["a"]
    assert [line[0] for line in alone][2:] == [30, -1]
    for code in range(4):  # the train's author knows what the columns mean
        for other in range(3):
            if other != (1 if code == 1 else 0):
                victim.knows(0, a=code, b=other)
    victim.knows(0, a=3)
    victim.reads(alone, "a")
    for code, total in enumerate(second):
        victim.knows(int(total), b=code)
    assert victim.interval(a=0) == (3, 3) == (int(first[0]), int(first[0]))

    release = released([A, B], [count_of("a"), count_of("b")], rows)
    assert set(release.tables) == {"a"}
    assert [item.code for item in release.suppressed] == [RefusalCode.RELEASE_CELL_TOO_SMALL]


def test_columns_that_have_nothing_to_do_with_each_other_are_all_told() -> None:
    rows = [{"a": str(n % 4), "b": str(n // 4 % 3), "c": str(n // 12 % 3)} for n in range(720)]
    wanted = [count_of("a"), count_of("b"), count_of("a", "b"), count_of("c"), count_of("b", "c")]
    assert set(released([A, B, C], wanted, rows).tables) == {item["key"] for item in wanted}


def test_quantiles_with_other_edges_beside_a_histogram_that_hides() -> None:
    """No manifest asks for both; the rules do not lean on that: quantiles with other edges say where the hidden ones lie."""
    values = np.array([20.0 + 7 * place % 31 for place in range(60)] + [65.0] * 3)

    def table(key: str, measure: Measure, column: str, edges: tuple[float, ...]) -> ExactTable:
        cells = np.searchsorted(edges, values, "right")
        made = count_table(key, cells, (column, len(edges) + 1))
        dimensions = (Dimension(column, edges, len(edges) + 1),)
        return replace(made, measure=measure, dimensions=dimensions)

    quantiles = table("quartiles", "quantiles", "size", (28.0, 36.0, 44.0, 52.0))
    for column, told in (("size", False), ("other", True)):
        found = hide([table("bins", "count", column, (30.0, 40.0, 60.0)), quantiles], RULES)
        shown = found["bins"].told
        assert shown is not None
        assert shown.ravel().tolist() == [True, False, True, False]
        assert (found["quartiles"].told is not None) is told
