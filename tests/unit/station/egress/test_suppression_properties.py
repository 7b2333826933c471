"""Whatever the tables, hiding answers, within its steps, and what it tells passes the gate and an attacker of another kind."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suppression_kit import RULES, Attacker, count_table, rules, sum_table

from policies.refusals import RefusalCode
from station.egress.suppression import Hidden, hide, hiding
from station.egress.suppression.audit import crosstab_is_safe
from station.egress.suppression.crosstabs import exposed, hide_crosstab
from station.egress.suppression.demands import insider
from station.egress.suppression.flows import OutOfWork, Slack, Work

BINS = {"a": 3, "b": 2, "c": 4}
numbers = st.floats(-100, 100, allow_nan=False, width=32)


@st.composite
def patients(draw: Any) -> dict[str, Any]:
    """Columns of some patients: skewed, so that small bins are common."""
    size = draw(st.integers(0, 80))
    made = {
        name: np.array(draw(st.lists(st.sampled_from([0, 0, 0, *range(bins)]), min_size=size, max_size=size)), int)
        for name, bins in BINS.items()
    }  # fmt: skip
    for name in ("v", "w"):
        pool = draw(st.lists(numbers | st.just(float("nan")), min_size=1, max_size=6))
        made[name] = np.array(draw(st.lists(st.sampled_from(pool), min_size=size, max_size=size)), float)
    return made


TABLES = ["a", "b", "c", "ab", "bc", "ac", "v", "va", "wb", "w"]


def tables_of(columns: dict[str, Any], names: list[str], minimum: int) -> list[Any]:
    made = []
    for name in names:
        by = name[1:] if name[0] in "vw" else name
        cells = np.zeros(len(columns["a"]), dtype=int)
        for letter in by:
            cells = cells * BINS[letter] + columns[letter]
        if name[0] in "vw":
            bins = BINS[by] if by else 1
            made.append(
                sum_table(name, columns[name[0]], cells, by=by, bins=bins, column=name[0],
                          bounds=(-100.0, 100.0), minimum=minimum)
            )  # fmt: skip
        else:
            made.append(count_table(name, cells, *((letter, BINS[letter]) for letter in by), minimum=minimum))
    return made


@given(
    patients(),
    st.lists(st.sampled_from(TABLES), unique=True, min_size=1),
    st.integers(1, 12),
    st.integers(1, 12),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_tables_it_answers_and_tells_no_small_cell(
    columns: dict[str, Any], names: list[str], minimum: int, asked: int
) -> None:
    tables = tables_of(columns, names, asked)
    found = hide(tables, rules(minimum))
    assert set(found) == set(names)
    for table in tables:
        hidden = found[table.key]
        assert isinstance(hidden, Hidden)
        assert (hidden.told is None) <= (hidden.code is not None)
        if hidden.told is None:
            continue
        assert hidden.told.shape == table.shape
        assert hidden.told.any()
        assert (hidden.code is None) == bool(hidden.told.all())
        told = table.counts[hidden.told]
        assert not ((told > 0) & (told < max(minimum, asked))).any()
    assert {key: None if h.told is None else h.told.tolist() for key, h in found.items()} == {
        key: None if h.told is None else h.told.tolist() for key, h in hide(tables, rules(minimum)).items()
    }


@given(patients(), st.lists(st.sampled_from(TABLES[:6]), unique=True, min_size=1), st.integers(3, 12))
@settings(max_examples=40, deadline=None)
def test_no_small_bin_follows_from_all_tables_together(
    columns: dict[str, Any], names: list[str], minimum: int
) -> None:
    """Solved over every combination of all columns: more than the gate looks at."""
    tables = tables_of(columns, names, minimum)
    found = hide(tables, rules(minimum))
    attacker = Attacker(**BINS)
    attacker.knows(len(columns["a"]))
    for table in tables:
        told = found[table.key].told
        if told is not None:
            attacker.reads(np.where(told, table.counts, -1), *table.key)
    for table in tables:
        told = found[table.key].told
        if told is None or told.all():
            continue
        for place, count in np.ndenumerate(table.counts):
            if 0 < count < minimum:
                cell = dict(zip(table.key, place, strict=False))
                low, high = attacker.interval(**cell)
                assert low == 0
                assert high > low
                assert len(table.key) == 2 or high >= minimum


@given(
    st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3), min_size=2, max_size=5), st.integers(3, 12)
)
@settings(max_examples=50, deadline=None)
def test_what_choosers_hide_the_gate_passes(cells: list[list[int]], minimum: int) -> None:
    counts = np.array(cells)
    none = np.zeros(len(cells), dtype=bool), np.zeros(3, dtype=bool)
    hidden = hide_crosstab(counts, minimum, *none, Work(10**8))
    if hidden is None:
        return
    assert not exposed(counts, hidden, minimum, Work(10**8))
    assert crosstab_is_safe(counts, hidden, minimum, *none, Work(10**9))
    # With one hidden cell told after all, the gate refuses where flows find something exposed.
    for place in np.argwhere(hidden & (counts >= minimum)):
        told = hidden.copy()
        told[tuple(place)] = False
        assert crosstab_is_safe(counts, told, minimum, *none, Work(10**9)) == (
            not exposed(counts, told, minimum, Work(10**8))
        )


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), min_size=2, max_size=3), st.integers(3, 6)
)
@settings(max_examples=25, deadline=None)
def test_flows_find_what_going_through_all_tables_finds(cells: list[list[int]], minimum: int) -> None:
    counts = np.array(cells)
    hidden = np.ones(counts.shape, dtype=bool)
    bounds = insider(counts, hidden, minimum)
    solver = Attacker(line=counts.shape[0], column=3)
    for (line, column), _ in np.ndenumerate(counts):
        solver.knows(
            int(bounds.lower[line, column]), int(bounds.upper[line, column]), line=line, column=column
        )
    for name, axis in (("line", 1), ("column", 0)):
        for code, total in enumerate(counts.sum(axis=axis)):
            solver.knows(int(total), **{name: code})
    slack = Slack(counts, hidden, bounds, Work(10**8))
    for (line, column), count in np.ndenumerate(counts):
        found = int(count) - slack.shrinks(line, column, 99), int(count) + slack.grows(line, column, 99)
        assert found == solver.interval(line=line, column=column)


def crossed(cells: int, mean: float) -> list[Any]:
    """Four crosstabs in a chain, of so many lines and columns."""
    generator = np.random.default_rng(7)
    size = int(cells * cells * mean)
    columns = [(generator.beta(1.5, 2.5, size) * cells).astype(int) for _ in range(5)]
    return [
        count_table(f"t{n}", columns[n] * cells + columns[n + 1], (f"c{n}", cells), (f"c{n + 1}", cells))
        for n in range(4)
    ]


def test_where_the_steps_are_not_enough_a_table_is_left_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = crossed(12, 25)
    assert all(hidden.told is not None for hidden in hide(tables, RULES).values())
    for name in ("_CHOOSING", "_ATTACKING"):
        with monkeypatch.context() as patched:
            patched.setattr(hiding, name, 200)
            found = hide(tables, RULES)
        assert {hidden.code for hidden in found.values()} == {RefusalCode.RELEASE_CELL_TOO_SMALL}
        assert all(hidden.told is None for hidden in found.values())


def test_the_largest_tables_end_within_their_steps() -> None:
    tables = crossed(64, 12)[:2]
    found = hide(tables, RULES)
    assert all(hidden.told is not None for hidden in found.values())
    with pytest.raises(OutOfWork):
        Work(10).spend(11)
