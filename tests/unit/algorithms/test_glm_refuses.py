"""What a regression refuses: few patients, small cells, columns that say the same, models and data that make no sense."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from glm_kit import (
    COVARIATES,
    COX,
    HOSPITALS,
    LINEAR,
    LOGISTIC,
    POISSON,
    Federation,
    Row,
    complete,
    example_policy,
    federation,
    patients,
    train_manifest,
)
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from algorithms.glm.client_app import FARTHEST
from algorithms.glm.errors import Code, GlmError
from algorithms.glm.newton import Ridge, next_step
from algorithms.glm.specification import model_of, read_model
from algorithms.glm.state import State, Sums, initial_arrays, read_state
from policies.policy import Policy
from station.egress.release import Withheld


def code_of(run: Federation, hospital: int = 0) -> str:
    """What the train answers at a hospital in the place of sums."""
    with pytest.raises(GlmError) as caught:
        run.ask(run.hospitals[hospital])
    return str(caught.value.pht_error_code)


def with_rows(tmp_path: Path, rows: Sequence[Row], model: Mapping[str, Any] = LOGISTIC, **settings: Any) -> Federation:  # fmt: skip
    """A federation whose first hospital has these patients."""
    return federation(tmp_path, model, [rows, *HOSPITALS[1:]], **settings)


def test_every_code_is_declared_by_both_trains_and_granted_by_both_examples() -> None:
    for name in ("glm", "glm-cox"):
        assert set(train_manifest(name).error_codes) == set(Code)
        assert set(example_policy(name).release.error_codes) == set(Code)


def test_a_parameter_for_every_three_patients_is_the_most(tmp_path: Path) -> None:
    balanced = complete(patients(4, 400))
    assert code_of(with_rows(tmp_path / "14", balanced[:14])) == Code.TOO_FEW_PATIENTS
    # Fifteen are enough for five columns, as far as this rule goes.
    with_rows(tmp_path / "15", balanced[:15]).ask(with_rows(tmp_path / "15b", balanced[:15]).hospitals[0])


def test_nobody_complete_is_too_few(tmp_path: Path) -> None:
    empty = [dict.fromkeys(row) for row in HOSPITALS[0]]
    assert code_of(with_rows(tmp_path, empty)) == Code.TOO_FEW_PATIENTS


def grid(*, few: int) -> list[dict[str, Any]]:
    """Ten patients in every cell of age, sex and pneumonia, and `few` in one."""
    made: list[dict[str, Any]] = []
    for age in ("20-29", "60-69"):
        for sex in ("F", "M"):
            for pneumonia in (0, 1):
                here = few if (age, sex) == ("60-69", "M") else 10
                made += [
                    {
                        "pneumonia": pneumonia,
                        "age_years": age,
                        "sex": sex,
                        "temperature_c": 36 + number / 2,
                        "crp_mg_l": 10 * number,
                        "worse": bool(pneumonia),
                        "weeks": number + 1,
                    }
                    for number in range(here)
                ]
    return made


@pytest.mark.parametrize("model", [LOGISTIC, LINEAR, COX])
def test_a_pair_of_categories_with_few_patients_keeps_a_hospital_out(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    # 2 by 3: six patients share age and sex; alone no category has fewer than 26.
    run = with_rows(tmp_path / "few", grid(few=3), model, minimum_cell_count=10)
    assert code_of(run) == Code.CELL_TOO_SMALL
    assert with_rows(tmp_path / "six", grid(few=3), model, minimum_cell_count=6).ask(run.hospitals[0])
    # Where nobody is, nobody is told of.
    assert with_rows(tmp_path / "none", grid(few=0), model, minimum_cell_count=10).ask(
        with_rows(tmp_path / "nobody", grid(few=0), model).hospitals[0]
    )


def test_an_outcome_of_few_is_a_small_cell(tmp_path: Path) -> None:
    rows = [{**row, "pneumonia": int(number < 4)} for number, row in enumerate(grid(few=10))]
    assert code_of(with_rows(tmp_path, rows, minimum_cell_count=5)) == Code.CELL_TOO_SMALL
    assert code_of(with_rows(tmp_path / "cox", [{**row, "worse": row["pneumonia"] == 1} for row in rows], COX, minimum_cell_count=5)) == Code.CELL_TOO_SMALL  # fmt: skip


def test_a_number_that_few_have_is_a_small_cell(tmp_path: Path) -> None:
    lonely = [{**row, "crp_mg_l": 2000 if number == 0 else 10} for number, row in enumerate(grid(few=10))]
    several = [{**row, "crp_mg_l": 10 * max(0, 3 - number)} for number, row in enumerate(grid(few=10))]
    assert code_of(with_rows(tmp_path / "1", lonely, minimum_cell_count=2)) == Code.CELL_TOO_SMALL
    assert code_of(with_rows(tmp_path / "2", several, minimum_cell_count=5)) == Code.CELL_TOO_SMALL


def test_three_numbers_are_a_category_and_each_has_a_minimum(tmp_path: Path) -> None:
    # Patients, sum and sum of squares are equations enough for the one patient with 20.
    rows = [
        {**row, "crp_mg_l": 20 if number == 0 else 10 * (number % 2)}
        for number, row in enumerate(grid(few=10))
    ]
    model = {**LOGISTIC, "covariates": [{"field": "crp_mg_l", "per": 10}]}
    assert code_of(with_rows(tmp_path, rows, model, minimum_cell_count=5)) == Code.CELL_TOO_SMALL


def test_columns_that_say_the_same_are_refused_but_with_a_ridge(tmp_path: Path) -> None:
    twice = {"field": "temperature_f", "centre": 98.6, "per": 1.8}
    model = {**LOGISTIC, "covariates": [*COVARIATES, twice]}
    rows = [
        [{**row, "temperature_f": row["temperature_c"] * 1.8 + 32} for row in complete(some)]
        for some in HOSPITALS
    ]
    run = federation(tmp_path, model, rows)
    run.round(1)
    assert code_of(run) == Code.RANK_DEFICIENT
    ridged = federation(tmp_path / "ridge", model, rows, ridge=0.01)
    ridged.round(1)
    assert ridged.ask(ridged.hospitals[0])


def test_a_category_that_nobody_anywhere_is_in_is_refused(tmp_path: Path) -> None:
    model = json.loads(json.dumps(LOGISTIC))
    model["covariates"][1]["groups"]["O"] = ["O"]
    model["covariates"][1]["excluded"] = ["U"]
    run = federation(tmp_path, model, HOSPITALS)
    run.round(1)
    assert code_of(run) == Code.RANK_DEFICIENT


def test_a_category_that_separates_is_refused_within_a_run_but_with_a_ridge(tmp_path: Path) -> None:
    rows = [
        [{**row, "pneumonia": 1 if row["sex"] == "M" else row["pneumonia"]} for row in complete(some)]
        for some in HOSPITALS
    ]
    run = federation(tmp_path, LOGISTIC, rows)
    with pytest.raises(GlmError) as caught:
        run.run(run.policy.runs.rounds)
    assert caught.value.pht_error_code == Code.SEPARATED
    ridged = federation(tmp_path / "ridge", LOGISTIC, rows, ridge=0.05).run(12)
    _, metrics = ridged.ask(ridged.hospitals[0])
    assert metrics["largest_step"] < 1e-9


def state(beta: float, log_likelihood: float, best: float, *, same: bool = True) -> State:
    """A trial of one coefficient, after a best one at zero."""
    population = np.array([5.0, 0.1])
    sums = Sums(log_likelihood, np.array([1.0]), np.array([[2.0]]), 0.0, population)
    before = population if same else population * 0.9
    return State(np.array([beta]), sums, np.zeros(1), best, before)


def test_a_step_that_makes_it_worse_is_halved_and_keeps_the_best() -> None:
    ridge = Ridge(0.0, free=0)
    worse = next_step(state(8.0, -30.0, -20.0), ridge, bounded=False)
    assert (worse.trial.item(), worse.accepted.item(), worse.accepted_log_likelihood) == (4.0, 0.0, -20.0)
    better = next_step(state(8.0, -10.0, -20.0), ridge, bounded=False)
    assert (better.trial.item(), better.accepted.item(), better.accepted_log_likelihood) == (8.5, 8.0, -10.0)
    # Of other patients two likelihoods are no comparison.
    other = next_step(state(8.0, -30.0, -20.0, same=False), ridge, bounded=False)
    assert (other.trial.item(), other.accepted.item()) == (8.5, 8.0)
    # A penalty counts in what is better: the likelihood is, the whole is not.
    penalised = next_step(state(8.0, -19.0, -20.0), Ridge(1.0, free=0), bounded=False)
    assert penalised.trial.item() == 4.0


def test_a_step_far_too_wide_comes_back_by_halving(tmp_path: Path) -> None:
    rows = [[{**row, "days": row["days"] * 100} for row in some] for some in HOSPITALS]
    run = federation(tmp_path, POISSON, rows).run(1)
    # An information a fifth of what it is: the step goes five times too far, where rates are beyond any bound.
    tensors = load_file(run.weights)
    for name in ("information", "information.rest"):
        tensors[name] = tensors[name] / 5
    run.weights = run.folder / "too-wide"
    save_file(tensors, run.weights)
    moved, reached = [], []
    for number in range(2, 14):
        run.round(number)
        moved.append(float(run.releases["hospital-0"].metrics["largest_step"]))
        reached.append(float(load_file(run.weights)["log_likelihood"][0]))
    assert moved[0] > 15
    assert reached[0] < -1e4
    # Back by halves, then on by Newton's own steps.
    assert moved[1] == pytest.approx(moved[0] / 2, abs=1e-6)
    assert moved[-1] < 1e-9
    straight = federation(tmp_path / "straight", POISSON, rows).run(8)
    found = [read_state(load_file(each.weights), 4).coefficients for each in (run, straight)]
    assert found[0] == pytest.approx(found[1], abs=1e-10)


def test_a_step_beyond_the_declared_range_is_not_told_and_withholds_nothing(tmp_path: Path) -> None:
    # Of a column per ten thousand degrees a coefficient is large; the sums are not.
    model = {**LINEAR, "covariates": [{"field": "temperature_c", "centre": 37, "per": 10_000}]}
    run = federation(tmp_path, model, HOSPITALS)
    run.round(1)
    moved = next_step(read_state(load_file(run.weights), 2), Ridge(0.0, free=1), bounded=False).largest
    (declared,) = [each for each in run.manifest.outputs.metrics if each.key == "largest_step"]
    assert moved > declared.maximum == FARTHEST
    run.round(2)
    assert "largest_step" not in run.releases["hospital-0"].metrics


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("sex", "X", Code.DATA_UNEXPECTED),
        ("age_years", "60", Code.DATA_UNEXPECTED),
        ("pneumonia", 2, Code.DATA_UNEXPECTED),
        ("crp_mg_l", "high", Code.DATA_UNEXPECTED),
        ("crp_mg_l", "nan", Code.DATA_UNEXPECTED),
        ("crp_mg_l", "inf", Code.DATA_UNEXPECTED),
        ("crp_mg_l", "1e300", Code.OUT_OF_RANGE),
    ],
)
def test_a_value_that_the_model_does_not_foresee_is_refused(
    tmp_path: Path, field: str, value: object, code: Code
) -> None:
    rows = [{**row, field: value} if number == 7 else row for number, row in enumerate(HOSPITALS[2])]
    assert code_of(with_rows(tmp_path, rows)) == code


def test_excluded_and_missing_values_leave_patients_out_or_are_a_group(tmp_path: Path) -> None:
    rows = [{**row, "sex": "U" if number < 10 else row["sex"]} for number, row in enumerate(HOSPITALS[2])]
    out = with_rows(tmp_path / "out", rows)
    assert out.ask(out.hospitals[0])[1]["complete_share"] == pytest.approx(241 / 251)
    unknown = [{**row, "sex": None if number < 10 else row["sex"]} for number, row in enumerate(HOSPITALS[2])]
    assert with_rows(tmp_path / "none", unknown).ask(out.hospitals[0])[1]["complete_share"] < 1
    model = json.loads(json.dumps(LOGISTIC))
    model["covariates"][1]["missing"] = "unknown"
    grouped = with_rows(tmp_path / "group", unknown, model)
    assert grouped.ask(grouped.hospitals[0])[1]["complete_share"] == 1.0
    assert "sex: unknown" in model_of(model).columns


@pytest.mark.parametrize("name", ["clinical.csv", "datalist.json", "cohort.json"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[]", b'{"training": [{"case": 1}]}', b'case,"patient\n']
)
def test_a_damaged_cohort_is_a_declared_error(tmp_path: Path, name: str, content: bytes) -> None:
    run = with_rows(tmp_path, HOSPITALS[0])
    path = run.hospitals[0].folder / name
    path.chmod(0o600)
    path.write_bytes(content)
    assert code_of(run) in {Code.DATA_UNEXPECTED, Code.MODEL_INVALID}


def test_a_field_that_the_cohort_lacks_is_named(tmp_path: Path) -> None:
    run = with_rows(tmp_path, [{"pneumonia": row["pneumonia"]} for row in HOSPITALS[0]])
    with pytest.raises(GlmError, match="age_years") as caught:
        run.ask(run.hospitals[0])
    assert caught.value.pht_error_code == Code.MODEL_INVALID


@pytest.mark.parametrize(
    "change",
    [
        {"family": "probit"},
        {"extra": 1},
        {"outcome": {"field": "pneumonia", "per": 2}},
        {"outcome": {"field": "pneumonia", "values": {"0": "no"}}},
        {"outcome": {"field": "age_years"}},
        {"time": {"field": "weeks"}},
        {"exposure": {"field": "stay"}},
        {"time_without_event": 3},
        {"covariates": "sex"},
        {"covariates": [COVARIATES[0], COVARIATES[0]]},
        # Of two groupings of one field, or a grouping and its number, each would need its own look at small cells.
        {
            "covariates": [
                COVARIATES[1],
                {"field": "sex", "groups": {"f": ["F"], "m": ["M"]}, "reference": "f"},
            ]
        },
        {"covariates": [COVARIATES[1], {"field": "sex", "values": {"F": 0, "M": 1}}]},
        {"covariates": [{"field": "sex", "groups": {"F": ["F"]}, "reference": "M"}]},
        {"covariates": [{"field": "sex", "groups": {"F": ["F"], "M": ["F"]}, "reference": "F"}]},
        {"covariates": [{"field": "sex", "groups": {"F": ["F"]}, "reference": "F", "excluded": ["F"]}]},
        {"covariates": [{"field": "sex", "groups": {"F": ["F"]}, "reference": "F", "missing": "F"}]},
        {"covariates": [{"field": "crp_mg_l", "per": 0}]},
        {"covariates": [{"field": "crp_mg_l", "centre": float("nan")}]},
        {"covariates": [{"field": "crp_mg_l", "values": {"a": 1}, "excluded": ["a"]}]},
        {"covariates": [{"field": f"x{number}"} for number in range(80)]},
    ],
)
def test_a_model_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(GlmError) as caught:
        model_of({**LOGISTIC, **change})
    assert caught.value.pht_error_code == Code.MODEL_INVALID


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff", b"[]", b" " * 300_000])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(GlmError) as caught:
        read_model(tmp_path / "model.json")
    assert caught.value.pht_error_code == Code.MODEL_INVALID


def test_weights_of_another_model_or_of_no_numbers_are_refused(tmp_path: Path) -> None:
    run = with_rows(tmp_path, HOSPITALS[0])
    whole = load_file(run.weights)
    damaged: list[dict[str, Any]] = [
        initial_arrays(4),
        {name: each for name, each in whole.items() if name != "score"},
        {**whole, "score": whole["score"].astype(np.float32)},
        {**whole, "score": np.full(5, np.nan)},
        {**whole, "population": np.array([np.inf, 1.0])},
    ]
    for arrays in damaged:
        save_file(arrays, run.weights)
        assert code_of(run) == Code.WEIGHTS_DO_NOT_FIT


def test_noise_is_refused_when_the_policy_is_written_and_without_buffers_nothing_is_summed(
    tmp_path: Path,
) -> None:
    document = json.loads(example_policy().model_dump_json())
    document["release"]["tensors"]["clipping_norm"] = 1.0
    document["release"]["differential_privacy"] = {"noise_multiplier": 1.0, "epsilon": 90.0, "delta": 1e-5}
    with pytest.raises(ValidationError, match="float_buffers and integer_buffers must be withhold"):
        Policy.model_validate_json(json.dumps(document))
    # Withheld as that asks, no sum ever leaves, so that there is no result which looks like one.
    document["release"]["tensors"]["float_buffers"] = "withhold"
    del document["release"]["differential_privacy"]
    run = federation(tmp_path, LOGISTIC, HOSPITALS, policy=Policy.model_validate_json(json.dumps(document)))
    for number in (1, 2):
        run.round(number)
    assert not any(each.any() for each in load_file(run.weights).values())


def test_a_range_that_sums_do_not_keep_withholds_all(tmp_path: Path) -> None:
    document = json.loads(example_policy().model_dump_json())
    document["release"]["tensors"]["maximum_absolute"] = 0.01
    run = federation(tmp_path, LOGISTIC, HOSPITALS, policy=Policy.model_validate_json(json.dumps(document)))
    withheld = run.guarded(run.hospitals[0], 1)
    assert isinstance(withheld, Withheld)
    assert withheld.code == "RELEASE_TENSOR_RANGE"
