"""Pooled tables against all patients' rows, and what they may never tell."""

import itertools
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_documents import map_manifest

from orchestrator.federation.strategies.tables import Table, moments_of, pool_tables, summed_tables
from policies.policy import ReleaseRules
from policies.rows import HIDDEN

AGGREGATES = [
    {"key": "shares", "column": "lung_share", "measure": "count", "edges": [0.25, 0.5, 0.75], "split": "training"},
    {"key": "by_sex", "column": "lung_share", "measure": "count", "edges": [0.25, 0.5, 0.75], "by": "sex", "split": "training"},
    {"key": "sums", "column": "nodules", "measure": "sum", "by": "sex", "decimals": 2, "split": "training"},
    {"key": "quantiles", "column": "lung_share", "measure": "quantiles", "edges": [0.25, 0.5, 0.75],
     "probabilities": [0.1, 0.5, 0.9], "split": "training"},
]  # fmt: skip
MANIFEST = map_manifest(aggregates=AGGREGATES)
RULES = ReleaseRules(maximum_bytes=1)
WIDTH = {item.key: len(MANIFEST.aggregate_columns(item)) for item in MANIFEST.outputs.aggregates}
LINES = {item.key: len(MANIFEST.aggregate_lines(item)) for item in MANIFEST.outputs.aggregates}


def counts(random: np.random.Generator, key: str, hide: float = 0.0) -> Table:
    cells = random.integers(0, 500, (LINES[key], WIDTH[key]))
    return [[HIDDEN if random.random() < hide else int(cell) for cell in line] for line in cells]


def pooled(tables: dict[str, dict[str, Table]], rules: ReleaseRules = RULES) -> Any:
    return pool_tables(tables, MANIFEST, rules)


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_counts_are_those_of_all_patients_or_hidden(seed: int, stations: int) -> None:
    random = np.random.default_rng(seed)
    tables = {f"s{number}": {"by_sex": counts(random, "by_sex", 0.1)} for number in range(stations)}
    found = pooled(tables)["by_sex"]
    assert found.stations == tuple(sorted(tables))
    for line, column in itertools.product(range(LINES["by_sex"]), range(WIDTH["by_sex"])):
        cells = [each["by_sex"][line][column] for each in tables.values()]
        told = found.table[line][column]
        assert type(told) is int
        assert told == (HIDDEN if HIDDEN in cells else sum(cells))


def test_very_large_counts_and_sums_that_cancel_are_exact() -> None:
    most = 10**12
    tables = {name: {"shares": [[most + number]] * LINES["shares"]} for number, name in enumerate("abc")}
    assert pooled(tables)["shares"].table[0] == [3 * most + 3]
    totals = (1e9, 0.01, -1e9)
    lines = {
        name: {"sums": [[10, total, 1.0]] * LINES["sums"]} for name, total in zip("abc", totals, strict=True)
    }
    assert pooled(lines)["sums"].table[0] == [30, 0.01, 3.0]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 4000), min_size=1, max_size=30), min_size=1, max_size=5))
def test_mean_and_variance_are_those_of_all_patients(people: list[list[int]]) -> None:
    # Hundredths, which two decimals tell exactly.
    values = [[each / 100 for each in station] for station in people]
    tables = {
        f"s{number}": {
            "sums": [[len(each), round(sum(each), 2), round(sum(one * one for one in each), 2)]]
            * LINES["sums"]
        }
        for number, each in enumerate(values)
    }
    everyone = [one for station in values for one in station]
    found = pooled(tables)["sums"].moments[0]
    assert found.mean == pytest.approx(statistics.fmean(everyone), abs=0.01 * len(people))
    if len(everyone) > 1:
        slack = 0.01 * len(people) * (2 * max(everyone) + 1) + 1e-6
        assert found.variance == pytest.approx(statistics.variance(everyone), abs=slack)
    else:
        assert found.variance is None


def test_a_variance_survives_values_far_from_zero() -> None:
    values = [100_000_000.0, 100_000_001.0, 100_000_002.0]
    found = moments_of([3, sum(values), sum(each * each for each in values)])
    assert found is not None
    assert found.mean == 100_000_001.0
    assert found.variance == pytest.approx(1.0, abs=2.0)  # what the squares' own digits leave
    assert moments_of([3, 3.0, 2.99]).variance == 0.0  # type: ignore[union-attr]
    assert moments_of([0, 0.0, 0.0]) is None
    assert moments_of([HIDDEN, 0.0, 0.0]) is None


def test_moments_are_not_said_of_rounded_or_noisy_counts() -> None:
    tables = {name: {"sums": [[20, 31.5, 99.0]] * LINES["sums"]} for name in "abc"}
    assert all(pooled(tables)["sums"].moments)
    rounded = RULES.model_copy(update={"count_rounding": 10})
    assert not any(pooled(tables, rounded)["sums"].moments)


def test_the_quantile_of_all_lies_within_what_is_said_of_it() -> None:
    random = np.random.default_rng(6)
    edges = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    for _ in range(50):
        people = [random.beta(*random.uniform(0.5, 4, 2), size=int(random.integers(5, 60))) for _ in range(4)]
        tables = {}
        for number, values in enumerate(people):
            places = [np.quantile(values, each, method="inverted_cdf") for each in (0.1, 0.5, 0.9)]
            bins = [min(int(np.searchsorted(edges, each, side="right")) - 1, 3) for each in places]
            tables[f"s{number}"] = {"quantiles": [[float(edges[at]), float(edges[at + 1])] for at in bins]}
        found = pooled(tables)["quantiles"].table
        everyone = np.concatenate(people)
        for (low, high), probability in zip(found, (0.1, 0.5, 0.9), strict=True):
            assert low <= np.quantile(everyone, probability, method="inverted_cdf") <= high
    same = {name: {"quantiles": [[0.0, 0.25], [0.25, 0.5], [0.5, 0.75]]} for name in "ab"}
    assert pooled(same)["quantiles"].table == same["a"]["quantiles"]


def _determined(tables: dict[str, dict[str, Table]], found: Any, line: int) -> set[int]:
    """Columns of the first station's line that follow from the pool, for somebody who knows every other station's cells.

    Linear algebra over the cells of that line: a cell follows where its unit vector is a sum of what is known.
    """
    names, width = sorted(tables), WIDTH["by_sex"]
    known = []
    for number, name in enumerate(names):
        for column, cell in enumerate(tables[name]["by_sex"][line]):
            if number > 0 or cell != HIDDEN:
                known.append(np.eye(len(names) * width)[number * width + column])
    told = [column for column in range(width) if found["by_sex"].table[line][column] != HIDDEN]
    known += [np.tile(np.eye(width)[column], len(names)) for column in told]
    known.append(np.ones(len(names) * width))  # the line's total is that of the table without sexes
    assert found["shares"].table[line][0] != HIDDEN
    rank = np.linalg.matrix_rank(np.array(known))
    return {
        column
        for column in range(width)
        if np.linalg.matrix_rank(np.vstack([*known, np.eye(len(names) * width)[column]])) == rank
    }


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 5))
def test_a_hidden_cell_follows_from_no_total(seed: int, stations: int) -> None:
    # A guard hides two cells of a line at least, where the line's total is told beside them.
    random = np.random.default_rng(seed)
    tables = {
        f"s{number}": {key: counts(random, key) for key in ("shares", "by_sex")} | {"sums": _sums(random)}
        for number in range(stations)
    }
    victim = tables["s0"]
    for line in (0, 2):
        victim["by_sex"][line][0] = victim["by_sex"][line][1] = HIDDEN
    # Of the third line one cell alone: what a guard would not do, and what shows that the test can find it out.
    victim["by_sex"][3][0] = HIDDEN
    victim["sums"][0] = [HIDDEN, 0.0, 0.0]
    found = pooled(tables)
    for line, columns in ((0, {0, 1}), (2, {0, 1}), (3, {0})):
        assert {at for at, cell in enumerate(found["by_sex"].table[line]) if cell == HIDDEN} == columns
    assert found["sums"].table[0] == [HIDDEN, 0.0, 0.0]
    assert found["sums"].moments[0] is None
    assert not {0, 1} & _determined(tables, found, 0)
    assert not {0, 1} & _determined(tables, found, 2)
    assert 0 in _determined(tables, found, 3)


def _sums(random: np.random.Generator) -> Table:
    return [[int(random.integers(10, 90)), 30.5, 99.0] for _ in range(LINES["sums"])]


def test_what_one_station_does_not_release_is_not_pooled_of_the_others() -> None:
    random = np.random.default_rng(1)
    whole = {name: {"shares": counts(random, "shares"), "sums": _sums(random)} for name in "abc"}
    assert set(pooled(whole)) == {"shares", "sums"}
    del whole["b"]["shares"]
    assert set(pooled(whole)) == {"sums"}
    whole["c"]["sums"] = [[1, 1.0, 1.0]]
    assert pooled(whole) == {}
    assert pooled({}) == {}


def test_a_rounds_entry_says_whose_patients_and_sums_alone_stay_as_they_were() -> None:
    tables = {
        name: {"sums": [[20, 31.5, 99.0]] * LINES["sums"], "quantiles": [[0.0, 0.25]] * 3} for name in "ba"
    }
    found = pooled(tables)
    told = found["sums"].as_json()
    assert told["stations"] == ["a", "b"]
    assert told["table"][0] == [40, 63.0, 198.0]
    assert told["moments"][0] == {"mean": 1.575, "variance": pytest.approx(2.53269, abs=1e-4)}
    assert summed_tables(found, MANIFEST) == {"sums": found["sums"].table}
