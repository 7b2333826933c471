"""Cox regression stratified by hospital gives what lifelines and statsmodels give with strata on the pooled patients.

Release rules: those of `policies/examples/glm.yaml`, differences in float32.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from glm_kit import COX, HOSPITALS, Federation, Row, columns_of, complete, federation
from lifelines import CoxPHFitter
from safetensors.numpy import load_file
from statsmodels.duration.hazard_regression import PHReg

from algorithms.glm.cox import cox_totals
from algorithms.glm.state import State, read_state

# lifelines calls pandas in a way that a later pandas will not take.
pytestmark = pytest.mark.filterwarnings("ignore:Starting with pandas version 4")

PROMISE = 1e-6
TIGHT = 1e-9
NAMES = ["old", "male", "temperature"]


def result(run: Federation) -> State:
    """Where the run ended."""
    return read_state(load_file(run.weights), 3)


def frame(rows: Any = HOSPITALS) -> pd.DataFrame:
    """Complete patients of all hospitals, with whose they are."""
    made = []
    for place, some in enumerate(rows):
        kept: list[Row] = complete(some)
        table = pd.DataFrame(columns_of(kept, intercept=False), columns=NAMES)
        made.append(
            table.assign(
                hospital=place,
                weeks=[row["weeks"] for row in kept],
                worse=[float(row["worse"]) for row in kept],
            )
        )
    return pd.concat(made, ignore_index=True)


def test_with_efrons_ties_it_is_lifelines_with_strata(tmp_path: Path) -> None:
    run = federation(tmp_path, COX, HOSPITALS).run(7)
    pooled = frame()
    # Ties are the rule here: nine weeks, hundreds of events.
    assert pooled["worse"].sum() > 30 * pooled["weeks"].nunique() * 0.5
    fit = CoxPHFitter().fit(
        pooled, "weeks", "worse", strata=["hospital"], fit_options={"precision": 1e-12, "max_steps": 100}
    )
    found = result(run)
    errors = np.sqrt(np.diag(np.linalg.inv(found.sums.information * run.examples)))
    assert found.coefficients == pytest.approx(fit.params_[NAMES].to_numpy(), abs=PROMISE)
    assert errors == pytest.approx(fit.standard_errors_[NAMES].to_numpy(), abs=PROMISE)
    assert found.sums.log_likelihood * run.examples == pytest.approx(fit.log_likelihood_, rel=PROMISE)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_both_ways_with_ties_are_statsmodels_with_strata(tmp_path: Path, ties: str) -> None:
    run = federation(tmp_path, COX, HOSPITALS, efron_ties=ties == "efron").run(7)
    pooled = frame()
    model = PHReg(
        pooled["weeks"], pooled[NAMES], status=pooled["worse"], strata=pooled["hospital"], ties=ties
    )
    fit = model.fit(method="newton", tol=1e-12, disp=0)
    found = result(run)
    errors = np.sqrt(np.diag(np.linalg.inv(found.sums.information * run.examples)))
    assert found.coefficients == pytest.approx(fit.params, abs=TIGHT)
    assert errors == pytest.approx(fit.bse, abs=TIGHT)
    assert found.sums.log_likelihood * run.examples == pytest.approx(fit.llf, rel=TIGHT)


def test_the_two_ways_with_ties_differ(tmp_path: Path) -> None:
    efron = federation(tmp_path / "efron", COX, HOSPITALS).run(6)
    breslow = federation(tmp_path / "breslow", COX, HOSPITALS, efron_ties=False).run(6)
    assert np.abs(result(efron).coefficients - result(breslow).coefficients).max() > 0.01


def test_hospitals_are_strata_not_one_baseline(tmp_path: Path) -> None:
    # In one hospital everything takes three times as long: with one baseline that would be taken for the patients'.
    slow = [{**row, "weeks": row["weeks"] * 3} for row in HOSPITALS[1]]
    rows = [HOSPITALS[0], slow, HOSPITALS[2]]
    run = federation(tmp_path, COX, rows).run(7)
    fit = CoxPHFitter().fit(
        frame(rows), "weeks", "worse", strata=["hospital"], fit_options={"precision": 1e-12}
    )
    assert result(run).coefficients == pytest.approx(fit.params_[NAMES].to_numpy(), abs=PROMISE)
    # Times within a hospital count by their order alone.
    as_before = federation(tmp_path / "before", COX, HOSPITALS).run(7)
    assert result(run).coefficients == pytest.approx(result(as_before).coefficients, abs=TIGHT)


def test_who_had_no_event_and_no_time_was_seen_until_the_end(tmp_path: Path) -> None:
    open_ended = [
        [{**row, "weeks": row["weeks"] if row["worse"] else None} for row in complete(some)]
        for some in HOSPITALS
    ]
    to_the_end = [
        [{**row, "weeks": row["weeks"] if row["worse"] else 9} for row in complete(some)]
        for some in HOSPITALS
    ]
    model = {**COX, "time_without_event": 9}
    found = federation(tmp_path / "open", model, open_ended).run(6)
    same = federation(tmp_path / "end", COX, to_the_end).run(6)
    assert result(found).coefficients == pytest.approx(result(same).coefficients, abs=TIGHT)
    assert result(found).sums.population * found.examples == pytest.approx([len(frame()), 3])


def test_the_gradient_and_the_information_are_the_derivatives_of_the_likelihood() -> None:
    random = np.random.default_rng(6)
    columns, time = random.normal(size=(40, 3)), random.integers(1, 6, 40).astype(float)
    event, beta = random.integers(0, 2, 40).astype(float), random.normal(size=3)
    for efron in (True, False):
        _, score, information = cox_totals(columns, time, event, beta, efron=efron)
        for axis in range(3):
            step = np.eye(3)[axis] * 1e-5
            ahead, behind = (
                cox_totals(columns, time, event, beta + sign * step, efron=efron) for sign in (1, -1)
            )
            assert (ahead[0] - behind[0]) / 2e-5 == pytest.approx(score[axis], abs=1e-6)
            assert -(ahead[1] - behind[1]) / 2e-5 == pytest.approx(information[axis], abs=1e-6)


def test_a_hospital_without_an_event_adds_nothing() -> None:
    columns, time = np.ones((4, 2)), np.arange(4.0)
    likelihood, score, information = cox_totals(columns, time, np.zeros(4), np.ones(2), efron=True)
    assert likelihood == 0.0
    assert not score.any()
    assert not information.any()
