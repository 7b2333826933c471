"""Attack: declare one side of a circle of tables as a column that joins two others, so that no name shows the circle.

Tables of a by b, of a by c and of b by c bound each other's hidden cells, often to one number. Where a by b is told as one column of
joined categories, nothing but what it joins says that it is one of them.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from suppression_kit import count_table, rules

from policies.documents import load_yaml
from policies.manifest import TrainManifest
from station.egress.analyses.exact import ExactTable
from station.egress.suppression import Hidden, hide
from station.egress.suppression.circles import is_acyclic

MINIMUM, BINS = 5, 3
SEEDS = (1, 58, 5043, 5052)
"""Patients of whom, without the rule, three tables tell a hidden number below the minimum."""

Codes = NDArray[np.int64]


def patients(seed: int) -> dict[str, Codes]:
    rng = np.random.default_rng(seed)
    size, others = int(rng.integers(60, 200)), rng.uniform(0.02, 0.4)
    first = rng.integers(0, BINS, size)
    found = {"a": first}
    for name in "bc":
        found[name] = np.where(rng.random(size) < others, rng.integers(0, BINS, size), first)
    return found


def tables(of: dict[str, Codes], joined: bool) -> list[ExactTable]:
    made = [count_table("ab", of["a"] * BINS + of["b"], ("ab", BINS * BINS), minimum=MINIMUM)]
    if joined:
        made = [replace(made[0], dimensions=(replace(made[0].dimensions[0], of=("a", "b")),))]
    made = [count_table(name, of[name], (name, BINS), minimum=MINIMUM) for name in "abc"] + made
    return made + [
        count_table(key, of[key[0]] * BINS + of[key[1]], (key[0], BINS), (key[1], BINS), minimum=MINIMUM)
        for key in ("ac", "bc")
    ]


def exactly_known(of: dict[str, Codes], hidden: dict[str, Hidden]) -> list[tuple[str, int]]:
    """Return the hidden cells of fewer than the minimum that the told ones leave one value."""
    index = np.indices((BINS, BINS, BINS)).reshape(3, -1)
    at = dict(zip("abc", index, strict=True))
    rows, told, open_cells = [np.ones(BINS**3, np.bool_)], [len(of["a"])], []
    for key, answer in hidden.items():
        if answer.told is None:
            continue
        cells, codes = at[key[0]], of[key[0]]
        for name in key[1:]:
            cells, codes = cells * BINS + at[name], codes * BINS + of[name]
        counts = np.bincount(codes, minlength=answer.told.size)
        for cell, is_told in enumerate(answer.told.ravel()):
            if is_told:
                rows.append(cells == cell)
                told.append(counts[cell])
            elif 0 < counts[cell] < MINIMUM:
                open_cells.append((key, cell, cells == cell))
    known = LinearConstraint(np.array(rows, float), told, told)
    found = []
    for key, cell, where in open_cells:
        ends = [
            milp(
                sign * where, constraints=known, integrality=np.ones(len(where)), bounds=Bounds(0, np.inf)
            ).fun
            for sign in (1.0, -1.0)
        ]
        if round(ends[0] + ends[1]) == 0:
            found.append((key, cell))
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_circle_is_seen_through_a_joined_column(seed: int) -> None:
    of = patients(seed)
    # As a column of which nobody knows that it joins two: this is what the rule is for.
    assert exactly_known(of, dict(hide(tables(of, joined=False), rules(MINIMUM))))
    answers = hide(tables(of, joined=True), rules(MINIMUM))
    assert exactly_known(of, dict(answers)) == []
    assert all(answers[name].told is not None for name in "abc")


def test_where_nothing_is_hidden_all_is_told() -> None:
    of = dict(zip("abc", np.indices((BINS, BINS, BINS)).reshape(3, -1).repeat(20, axis=1), strict=True))
    answers = hide(tables(of, joined=True), rules(MINIMUM))
    assert all(answer.told is not None and answer.told.all() for answer in answers.values())


def test_the_train_of_external_validation_closes_none() -> None:
    path = Path(__file__).parents[2] / "train_images" / "model-evaluation" / "train.yaml"
    manifest = load_yaml(TrainManifest, path.read_bytes(), what="train.yaml")
    rows = manifest.outputs.rows
    assert rows is not None
    joined = {column.name: frozenset(column.of or (column.name,)) for column in rows.columns}
    sets = [
        joined[item.column] | (frozenset() if item.by is None else joined[item.by])
        for item in manifest.outputs.aggregates
    ]
    assert is_acyclic(sets)
