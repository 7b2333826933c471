"""Regressions over three hospitals give what the pooled patients give: against statsmodels, through the real guard and FedAvg.

Release rules, unless a test says otherwise: those of `policies/examples/glm.yaml`, differences in float32.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from glm_kit import (
    HOSPITALS,
    LINEAR,
    LOGISTIC,
    POISSON,
    Federation,
    columns_of,
    example_policy,
    federation,
    patients,
    pooled,
    with_precision,
)
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from algorithms.glm.state import State, read_state

TIGHT = 1e-10
"""Of double precision little is lost on the way; the promise is 1e-6."""


def result(run: Federation) -> State:
    """Where the run ended."""
    columns = {"logistic": 5, "linear": 4, "poisson": 4}[run.model["family"]]
    return read_state(load_file(run.weights), columns)


def errors(run: Federation) -> NDArray[np.float64]:
    """Standard errors at a variance of one."""
    return np.asarray(np.sqrt(np.diag(np.linalg.inv(result(run).sums.information * run.examples))))


def logit(rows: Any) -> Any:
    """The pooled logistic regression."""
    outcome = np.array([row["pneumonia"] for row in rows], np.float64)
    return sm.Logit(outcome, columns_of(rows, crp=True)).fit(disp=0, tol=1e-14, maxiter=100)


def test_a_logistic_regression_is_that_of_the_pooled_patients(tmp_path: Path) -> None:
    run = federation(tmp_path, LOGISTIC, HOSPITALS).run(8)
    fit, found = logit(pooled()), result(run)
    assert found.coefficients == pytest.approx(fit.params, abs=TIGHT)
    assert errors(run) == pytest.approx(fit.bse, abs=TIGHT)
    assert found.sums.log_likelihood * run.examples == pytest.approx(fit.llf, rel=TIGHT)
    assert found.sums.population * run.examples == pytest.approx([len(pooled()), 3], rel=TIGHT)
    # The numbers that averaging counted with are rounded, so none of this rests on them.
    assert all(release.num_examples % 10 == 0 for release in run.releases.values())
    assert run.examples != len(pooled())


def test_a_linear_regression_is_that_of_the_pooled_patients_after_two_rounds(tmp_path: Path) -> None:
    run = federation(tmp_path, LINEAR, HOSPITALS).run(2)
    rows = pooled()
    fit = sm.OLS(np.array([row["crp_mg_l"] / 10 for row in rows]), columns_of(rows)).fit()
    found = result(run)
    variance = found.sums.pearson * run.examples / (len(rows) - 4)
    assert found.coefficients == pytest.approx(fit.params, abs=TIGHT)
    assert variance == pytest.approx(fit.scale, rel=TIGHT)
    assert errors(run) * np.sqrt(variance) == pytest.approx(fit.bse, abs=TIGHT)


def test_a_poisson_regression_with_an_exposure_is_that_of_the_pooled_patients(tmp_path: Path) -> None:
    run = federation(tmp_path, POISSON, HOSPITALS).run(8)
    rows = pooled()
    counts, exposure = (np.array([row[name] for row in rows], np.float64) for name in ("days", "stay"))
    fit = sm.GLM(counts, columns_of(rows), family=sm.families.Poisson(), exposure=exposure).fit(tol=1e-14)
    found = result(run)
    assert found.coefficients == pytest.approx(fit.params, abs=TIGHT)
    assert errors(run) == pytest.approx(fit.bse, abs=TIGHT)
    assert found.sums.log_likelihood * run.examples == pytest.approx(fit.llf, rel=TIGHT)
    assert found.sums.pearson * run.examples == pytest.approx(fit.pearson_chi2, rel=TIGHT)


def test_counts_of_hundreds_are_not_overshot(tmp_path: Path) -> None:
    rows = [[{**row, "days": row["days"] * 100, "stay": 1} for row in some] for some in HOSPITALS]
    run = federation(tmp_path, POISSON, rows).run(8)
    counts = np.array([row["days"] for row in pooled(rows)], np.float64)
    fit = sm.GLM(counts, columns_of(pooled(rows)), family=sm.families.Poisson()).fit(tol=1e-14)
    assert result(run).coefficients == pytest.approx(fit.params, abs=TIGHT)


def test_a_ridge_penalty_is_statsmodels_own(tmp_path: Path) -> None:
    run = federation(tmp_path, LOGISTIC, HOSPITALS, ridge=0.2).run(8)
    rows = pooled()
    outcome = np.array([row["pneumonia"] for row in rows], np.float64)
    model = sm.GLM(outcome, columns_of(rows, crp=True), family=sm.families.Binomial())
    fit = model.fit_regularized(alpha=np.array([0.0, 0.2, 0.2, 0.2, 0.2]), L1_wt=0.0, opt_method="newton-cg", xtol=1e-12)  # fmt: skip
    assert result(run).coefficients == pytest.approx(fit.params, abs=1e-6)
    assert np.abs(result(run).coefficients - logit(rows).params).max() > 0.05


def test_an_old_category_that_one_hospital_lacks_is_a_column_of_zeros_there(tmp_path: Path) -> None:
    young = [{**row, "age_years": "20-29"} for row in patients(9, 90)]
    rows = [*HOSPITALS, young]
    run = federation(tmp_path, LOGISTIC, rows).run(8)
    assert result(run).coefficients == pytest.approx(logit(pooled(rows)).params, abs=TIGHT)


def test_only_the_first_study_of_a_patient_counts(tmp_path: Path) -> None:
    once = federation(tmp_path / "once", LOGISTIC, HOSPITALS).run(3)
    thrice = federation(tmp_path / "thrice", LOGISTIC, HOSPITALS, studies=3).run(3)
    # Of three times the images averaging counts other numbers, and comes to the same.
    assert thrice.examples > 2 * once.examples
    assert result(thrice).coefficients == pytest.approx(result(once).coefficients, abs=TIGHT)


def test_a_hospital_that_misses_rounds_is_in_the_sums_of_the_last(tmp_path: Path) -> None:
    run = federation(tmp_path, LOGISTIC, HOSPITALS)
    for number in range(1, 10):
        run.round(number, missing=["hospital-1"] if number in {2, 3, 4} else [])
    assert result(run).coefficients == pytest.approx(logit(pooled()).params, abs=TIGHT)
    assert result(run).sums.population * run.examples == pytest.approx([len(pooled()), 3], rel=TIGHT)


def test_without_a_hospital_it_is_the_regression_of_the_others(tmp_path: Path) -> None:
    run = federation(tmp_path, LOGISTIC, HOSPITALS)
    for number in range(1, 10):
        run.round(number, missing=["hospital-1"] if number > 2 else [])
    others = [HOSPITALS[0], HOSPITALS[2]]
    assert result(run).coefficients == pytest.approx(logit(pooled(others)).params, abs=TIGHT)


@pytest.mark.parametrize(("precision", "loss"), [("float16", 1e-4), ("bfloat16", 1e-3)])
def test_what_coarser_differences_cost_is_small_and_there(
    tmp_path: Path, precision: str, loss: float
) -> None:
    policy = with_precision(example_policy(), precision)
    run = federation(tmp_path, LOGISTIC, HOSPITALS, policy=policy).run(10)
    off = np.abs(result(run).coefficients - logit(pooled()).params) / logit(pooled()).bse
    # In standard errors: far less than the patients' own chance, and more than nothing.
    assert loss / 1e3 < off.max() < 50 * loss


def test_the_rest_carries_what_float32_leaves_over(tmp_path: Path) -> None:
    run = federation(tmp_path, LOGISTIC, HOSPITALS).run(8)
    without = {
        name: np.zeros_like(each) if name.endswith(".rest") else each
        for name, each in load_file(run.weights).items()
    }
    save_file(without, run.weights)
    exact = logit(pooled()).params
    assert np.abs(without["coefficients"] - exact).max() > 1e-10
    assert np.abs(result(run).coefficients - exact).max() < 1e-6


def test_an_optimiser_at_the_orchestrator_takes_the_mean_of_sums_all_the_same(tmp_path: Path) -> None:
    # No policy grants it. All tensors are declared as buffers, and of those every optimiser takes the mean.
    run = federation(tmp_path, LOGISTIC, HOSPITALS)
    run.strategy = "FedAdam"
    assert result(run.run(8)).coefficients == pytest.approx(logit(pooled()).params, abs=TIGHT)
