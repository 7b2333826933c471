"""What single stations' sums tell somebody who studies them: shown, so that nobody signs for less than it is.

Release rules: those of `policies/examples/glm.yaml`, which says `orchestrator-sees-single-updates`.
"""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from glm_kit import Federation, federation, patients
from numpy.typing import NDArray
from safetensors.numpy import load_file

from algorithms.glm.errors import Code, GlmError
from algorithms.glm.state import State, read_state
from station.egress.release import Release

NAMES = ("one", "two", "three")
PATTERNS: list[tuple[int, ...]] = list(product((0, 1), repeat=3))


def model(family: str) -> dict[str, Any]:
    """Three categories of two groups each."""
    covariates = [
        {"field": name, "groups": {"no": ["false"], "yes": ["true"]}, "reference": "no"} for name in NAMES
    ]
    return {"family": family, "outcome": {"field": "value"}, "covariates": covariates}


def counted(counts: dict[tuple[int, ...], int], seed: int) -> list[dict[str, Any]]:
    """A hospital with so many patients of each combination; half of each has the outcome."""
    random = np.random.default_rng(seed)
    rows = [
        {**{name: bool(has) for name, has in zip(NAMES, pattern, strict=True)}, "value": number % 2}
        for pattern, count in counts.items()
        for number in range(count)
    ]
    random.shuffle(rows)
    return rows


RARE = dict(zip(PATTERNS, (40, 35, 52, 30, 61, 33, 29, 3), strict=True))
"""Three patients have all of it; no category and no two have fewer than 32."""
COMMON = dict(zip(PATTERNS, (44, 31, 38, 42, 50, 36, 28, 30), strict=True))


def state_of(run: Federation, number: int, columns: int) -> tuple[State, int]:
    """What one station's release of a round holds, and by which number it is divided."""
    release = run.guarded(run.hospitals[0], number)
    assert isinstance(release, Release)
    assert release.arrays is not None
    delta = load_file(release.arrays.path)
    arrays = {name: each + delta[name].astype(np.float64) for name, each in load_file(run.weights).items()}
    return read_state(arrays, columns), release.num_examples


def told_by(run: Federation, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the orchestrator works out from one station's release of a round: where it was, and the information of its own patients."""
    state, examples = state_of(run, number, 4)
    return state.coefficients, np.asarray(state.sums.information * examples)


def test_the_sums_of_a_linear_model_are_a_table_of_counts(tmp_path: Path) -> None:
    run = federation(tmp_path, model("linear"), [counted(RARE, 1), counted(COMMON, 2), counted(COMMON, 3)])
    _, found = told_by(run, 1)
    assert found[0, 0] == pytest.approx(sum(RARE.values()), abs=1e-6)
    for axis in range(3):
        assert found[0, axis + 1] == pytest.approx(sum(n for p, n in RARE.items() if p[axis]), abs=1e-6)
    both = sum(count for pattern, count in RARE.items() if pattern[0] and pattern[1])
    assert found[1, 2] == pytest.approx(both, abs=1e-6)


def equations(beta: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each entry of a logistic information is made of: a weight for each combination of categories."""
    columns = np.array([[1, *pattern] for pattern in PATTERNS], np.float64)
    mean = 1 / (1 + np.exp(-columns @ beta))
    weights = mean * (1 - mean)
    lower = np.tril_indices(4)
    products = np.einsum("ki,kj->kij", columns, columns)[:, lower[0], lower[1]]
    return np.asarray((products * weights[:, np.newaxis]).T)


def test_two_rounds_of_a_logistic_model_tell_every_combination_however_rare(tmp_path: Path) -> None:
    rows = [counted(RARE, 1), counted(COMMON, 2), counted(COMMON, 3)]
    for place, some in enumerate(rows):
        # Outcomes that go with the categories, so that the second round is at another place than the first.
        for row, other in zip(some, patients(40 + place, len(some)), strict=True):
            row["value"] = int(row["one"] + row["two"] * 0.5 + other["pneumonia"] > 1)
    run = federation(tmp_path, model("logistic"), rows, minimum_cell_count=10)
    run.round(1)
    known, told = [], []
    for number in (2, 3):
        beta, information = told_by(run, number)
        known.append(equations(beta))
        told.append(information[np.tril_indices(4)])
        run.round(number)
    solved, *_ = np.linalg.lstsq(np.concatenate(known), np.concatenate(told), rcond=None)
    assert solved.round().astype(int).tolist() == list(RARE.values())
    assert np.abs(solved - solved.round()).max() < 0.05


def test_a_minimum_for_combinations_keeps_such_a_hospital_out(tmp_path: Path) -> None:
    rows = [counted(RARE, 1), counted(COMMON, 2), counted(COMMON, 3)]
    run = federation(tmp_path, model("logistic"), rows, minimum_cell_count=10, minimum_joint_count=10)
    with pytest.raises(GlmError) as caught:
        run.ask(run.hospitals[0])
    assert caught.value.pht_error_code == Code.CELL_TOO_SMALL
    assert run.ask(run.hospitals[1])


ADMITTED = (19, 9, 1, 2)
"""Events in the first four weeks; the others were last seen in the fifth."""


def weekly(seed: int, count: int, admitted: tuple[int, ...] = ADMITTED) -> list[dict[str, Any]]:
    """A hospital with so many events in each week, every second patient with `one`."""
    weeks = [week for week, events in enumerate(admitted, 1) for _ in range(events)]
    rows = [
        {
            "one": number % 2 == 0,
            "value": int(number < len(weeks)),
            "weeks": [*weeks, 5][min(number, len(weeks))],
        }
        for number in range(count)
    ]
    np.random.default_rng(seed).shuffle(rows)  # type: ignore[arg-type]
    return rows


def of_weeks(run: Federation) -> list[tuple[int, ...]]:
    """Every table of events in four weeks, no week without, that one hospital's first log-likelihood leaves possible."""
    state, examples = state_of(run, 1, 1)
    patients, most = round(state.sums.patients * examples), 26
    events = np.stack(np.meshgrid(*[np.arange(1, most)] * 4, indexing="ij"))
    at_risk = patients - np.concatenate([np.zeros_like(events[:1]), np.cumsum(events, axis=0)[:-1]])
    # Breslow's at zero: each event is one of all who are still at risk in its week.
    found = -np.sum(events * np.log(np.maximum(at_risk, 1)), axis=0)
    places = np.argwhere(np.abs(found - state.sums.log_likelihood * examples) < 1e-8)
    return [tuple(int(each) + 1 for each in place) for place in places]


def test_with_breslows_ties_one_number_tells_how_many_had_the_event_in_each_week(tmp_path: Path) -> None:
    cox = {**model("cox"), "time": {"field": "weeks"}, "covariates": model("cox")["covariates"][:1]}
    rows = [weekly(seed, 140) for seed in (1, 2, 3)]
    run = federation(tmp_path / "breslow", cox, rows, name="glm-cox", minimum_cell_count=10, efron_ties=False)
    assert of_weeks(run) == [ADMITTED]
    # By Efron's way that number depends on how many events there were, and not on when.
    early = federation(tmp_path / "early", cox, rows, name="glm-cox", efron_ties=True)
    spread = federation(
        tmp_path / "spread", cox, [weekly(1, 140, (8, 8, 8, 7)), *rows[1:]], name="glm-cox", efron_ties=True
    )
    told = [state_of(each, 1, 1)[0].sums.log_likelihood for each in (early, spread)]
    assert told[0] == pytest.approx(told[1], rel=1e-12)
