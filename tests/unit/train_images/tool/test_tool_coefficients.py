"""`pht-train coefficients` reads what a run of three hospitals gives: against statsmodels, with the orchestrator's own provenance."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import result_documents
import statsmodels.api as sm
from glm_kit import (
    COX,
    HOSPITALS,
    LINEAR,
    LOGISTIC,
    POISSON,
    ROOT,
    Federation,
    columns_of,
    federation,
    pooled,
)
from safetensors.numpy import load_file, save_file
from tool_kit import Tool, layer, make_bundle

from orchestrator.federation.orders import RunProgress, RunState
from orchestrator.results.facts import Facts
from orchestrator.results.provenance import provenance_statement
from orchestrator.results.shown import shown_rounds
from policies.console import run as run_program
from policies.documents import canonical_json, digest_of_file
from policies.errors import ExitCode
from train_images.cli import app
from train_images.tool.folders import PackedTrain

STATIONS = ("hospital-0", "hospital-1", "hospital-2")


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(capsys)


def bundle(folder: Path, model: dict[str, Any]) -> PackedTrain:
    """The train's bundle with a model, of an image that no engine ever had."""
    source = ROOT / "train_images" / "glm"
    files = {"opt/pht/train.json": (source / "train.json").read_bytes(), "opt/pht/model.json": json.dumps(model).encode()}  # fmt: skip
    folder.mkdir(parents=True)
    return make_bundle(folder, manifest=(source / "train.yaml").read_text(), layers=(layer({"etc/x": b""}), layer(files)))  # fmt: skip


def fetched(run: Federation, train: PackedTrain, out: Path, rounds: int, took_part: tuple[str, ...] = STATIONS) -> Path:  # fmt: skip
    """What `pht-train results` leaves of a run: the model, and the statement that the orchestrator writes of it."""
    out.mkdir()
    (out / "model.safetensors").write_bytes(run.weights.read_bytes())
    accepted = result_documents.accepted_order(stages=("train",), rounds=rounds, stations=STATIONS)
    order = accepted.order.model_copy(
        update={
            "hyperparameters": dict(run.settings),
            "image_config_digest": train.index.config.digest,
            "manifest_digest": train.index.manifest.digest,
        }
    )
    accepted = accepted.model_copy(update={"order": order})
    examples = {name: run.releases[name].num_examples for name in took_part}
    entries = [result_documents.round_entry(number, dict.fromkeys(took_part, 0.5), examples) for number in range(1, rounds + 1)]  # fmt: skip
    digest = digest_of_file(out / "model.safetensors")
    facts = Facts(
        accepted=accepted,
        policy=None,
        progress=RunProgress(state=RunState.FINISHED),
        rounds=shown_rounds(accepted, entries),
        history=(),
        weights=digest,
        model_round=rounds,
        tensors=(),
        software={},
    )
    statement = provenance_statement(facts, {"model.safetensors": digest})
    (out / "provenance.json").write_bytes(canonical_json(statement))
    return out


def shown(tool: Tool, tmp_path: Path, model: dict[str, Any], rounds: int = 8, **settings: float) -> Any:
    """The table of a run, as JSON."""
    run = federation(tmp_path / "run", model, HOSPITALS, **settings).run(rounds)
    train = bundle(tmp_path / "bundle", model)
    return tool.json(
        "coefficients", fetched(run, train, tmp_path / "result", rounds), "--train", tmp_path / "bundle"
    )


def column(found: Any, name: str) -> list[Any]:
    """One column of the table."""
    return [line[name] for line in found["coefficients"]]


def test_a_logistic_table_is_statsmodels_summary(tool: Tool, tmp_path: Path) -> None:
    found = shown(tool, tmp_path, LOGISTIC)
    rows = pooled()
    fit = sm.Logit(np.array([row["pneumonia"] for row in rows]), columns_of(rows, crp=True)).fit(
        disp=0, tol=1e-14
    )
    assert column(found, "name") == [
        "intercept", "age_years: 50 and over", "sex: M", "temperature_c from 37", "crp_mg_l per 50 from 50",
    ]  # fmt: skip
    interval = fit.conf_int()
    for name, expected in (
        ("coefficient", fit.params), ("standard_error", fit.bse), ("statistic", fit.tvalues), ("p", fit.pvalues),
        ("lower", interval[:, 0]), ("upper", interval[:, 1]),
    ):  # fmt: skip
        assert column(found, name) == pytest.approx(expected, abs=1e-8), name
    assert column(found, "ratio")[1:] == pytest.approx(np.exp(fit.params[1:]), abs=1e-8)
    assert column(found, "ratio_upper")[1:] == pytest.approx(np.exp(interval[1:, 1]), abs=1e-7)
    assert column(found, "ratio")[0] is None
    assert found["log_likelihood"] == pytest.approx(fit.llf, abs=1e-8)
    assert (found["patients"], found["stations"], found["converged"]) == (len(rows), 3, True)
    assert found["references"] == {"age_years": "under 50", "sex": "F"}


def test_a_linear_table_has_the_residual_variance_and_students_t(tool: Tool, tmp_path: Path) -> None:
    found = shown(tool, tmp_path, LINEAR, rounds=2)
    rows = pooled()
    fit = sm.OLS(np.array([row["crp_mg_l"] / 10 for row in rows]), columns_of(rows)).fit()
    assert column(found, "standard_error") == pytest.approx(fit.bse, abs=1e-9)
    assert column(found, "p") == pytest.approx(fit.pvalues, abs=1e-12)
    assert column(found, "upper") == pytest.approx(fit.conf_int()[:, 1], abs=1e-8)
    assert found["dispersion"] == pytest.approx(fit.scale, rel=1e-9)
    assert found["log_likelihood"] == pytest.approx(fit.llf, abs=1e-7)
    assert found["ratio"] is None


def test_poisson_and_cox_tables_name_their_ratios(tool: Tool, tmp_path: Path) -> None:
    counts = shown(tool, tmp_path / "poisson", POISSON)
    rows = pooled()
    days, stay = (np.array([row[name] for row in rows], np.float64) for name in ("days", "stay"))
    fit = sm.GLM(days, columns_of(rows), family=sm.families.Poisson(), exposure=stay).fit(tol=1e-14)
    assert counts["ratio"] == "rate ratio"
    assert counts["dispersion"] == pytest.approx(fit.pearson_chi2 / fit.df_resid, rel=1e-9)
    hazards = shown(tool, tmp_path / "cox", COX)
    assert hazards["ratio"] == "hazard ratio"
    assert "intercept" not in column(hazards, "name")
    assert None not in column(hazards, "ratio")


def test_a_person_reads_names_intervals_and_what_is_compared(tool: Tool, tmp_path: Path) -> None:
    run = federation(tmp_path / "run", LOGISTIC, HOSPITALS).run(8)
    train = bundle(tmp_path / "bundle", LOGISTIC)
    out = fetched(run, train, tmp_path / "result", 8)
    text = tool("coefficients", out, "--train", tmp_path / "bundle")
    for words in ("odds ratio", "sex: M", "sex is compared with: F", f"{len(pooled())} patients of 3 stations", "Converged"):  # fmt: skip
        assert words in text


def test_what_has_not_converged_says_so(tool: Tool, tmp_path: Path) -> None:
    found = shown(tool, tmp_path, LOGISTIC, rounds=2)
    assert found["converged"] is False
    assert any("Not converged" in note for note in found["notes"])


def test_a_ridge_is_told_of(tool: Tool, tmp_path: Path) -> None:
    found = shown(tool, tmp_path, LOGISTIC, ridge=0.1)
    assert found["ridge"] == 0.1
    assert found["converged"] is True
    # Shrunk coefficients have no test: what is left is how far they would move, not whether they are zero.
    assert column(found, "statistic") == column(found, "p") == [None] * 5
    assert None not in column(found, "standard_error")
    assert any("ridge" in note for note in found["notes"])


def test_of_two_stations_there_are_no_errors_until_n_is_given(tool: Tool, tmp_path: Path) -> None:
    run = federation(tmp_path / "run", LOGISTIC, HOSPITALS)
    for number in range(1, 9):
        run.round(number, missing=["hospital-2"])
    train = bundle(tmp_path / "bundle", LOGISTIC)
    out = fetched(run, train, tmp_path / "result", 8, took_part=STATIONS[:2])
    found = tool.json("coefficients", out, "--train", tmp_path / "bundle")
    assert column(found, "standard_error") == [None] * 5
    assert found["patients"] is None
    given = ("--examples", run.examples)
    found = tool.json("coefficients", out, "--train", tmp_path / "bundle", *given)
    rows = pooled(HOSPITALS[:2])
    fit = sm.Logit(np.array([row["pneumonia"] for row in rows]), columns_of(rows, crp=True)).fit(
        disp=0, tol=1e-14
    )
    assert column(found, "standard_error") == pytest.approx(fit.bse, abs=1e-8)
    # Of another number patients and stations would not be whole.
    said = tool.error(
        ExitCode.USAGE, "coefficients", out, "--train", tmp_path / "bundle", "--examples", run.examples + 10
    )
    assert "not of so many examples" in said


def test_a_station_that_was_counted_with_another_number_is_found(tool: Tool, tmp_path: Path) -> None:
    run = federation(tmp_path / "run", LOGISTIC, HOSPITALS).run(4)
    release = run.releases["hospital-0"]
    train = bundle(tmp_path / "bundle", LOGISTIC)
    run.releases["hospital-0"] = replace(release, num_examples=release.num_examples - 10)
    out = fetched(run, train, tmp_path / "result", 4)
    tool.error(ExitCode.USAGE, "coefficients", out, "--train", tmp_path / "bundle")


def test_other_bundles_and_changed_files_are_refused(tool: Tool, tmp_path: Path) -> None:
    run = federation(tmp_path / "run", LOGISTIC, HOSPITALS).run(1)
    train = bundle(tmp_path / "bundle", LOGISTIC)
    out = fetched(run, train, tmp_path / "result", 1)
    bundle(tmp_path / "other", LINEAR)
    assert "another image" in tool.error(ExitCode.USAGE, "coefficients", out, "--train", tmp_path / "other")
    tool.error(ExitCode.NOT_FOUND, "coefficients", tmp_path, "--train", tmp_path / "bundle")
    tensors = load_file(out / "model.safetensors")
    save_file({**tensors, "score": tensors["score"] + 1}, out / "model.safetensors")
    tool.error(ExitCode.TRUST, "coefficients", out, "--train", tmp_path / "bundle")


@pytest.mark.parametrize(
    "model",
    [b"", b"\x00" * 64, None, {"coefficients": np.zeros(5)}, {"coefficients": np.full(5, np.nan)}],
    ids=["empty", "zeros", "no-sums", "half", "nan"],
)
def test_a_model_that_is_no_regressions_result_is_refused(tool: Tool, tmp_path: Path, model: Any) -> None:
    run = federation(tmp_path / "run", LOGISTIC, HOSPITALS)
    run.releases = federation(tmp_path / "full", LOGISTIC, HOSPITALS).run(1).releases
    if isinstance(model, bytes):
        run.weights.write_bytes(model)
    elif model is not None:
        save_file({**load_file(run.weights), **model} if "nan" in str(model) else model, run.weights)
    train = bundle(tmp_path / "bundle", LOGISTIC)
    out = fetched(run, train, tmp_path / "result", 1)
    code = ExitCode.USAGE if model is None else ExitCode.DOCUMENT
    tool.error(code, "coefficients", out, "--train", tmp_path / "bundle")


def test_a_train_that_is_no_regression_has_no_coefficients(tool: Tool, tmp_path: Path) -> None:
    run = federation(tmp_path / "run", LOGISTIC, HOSPITALS).run(1)
    (tmp_path / "plain").mkdir()
    train = make_bundle(tmp_path / "plain")
    out = fetched(run, train, tmp_path / "result", 1)
    assert "model.json" in tool.error(ExitCode.USAGE, "coefficients", out, "--train", tmp_path / "plain")


@pytest.mark.parametrize("part", ["predicate", "rounds", "order", "outcome", "subject"])
@pytest.mark.parametrize("value", [None, 1, "x", [], [1], {}])
def test_a_statement_that_is_none_ends_in_an_error_of_ours(
    tool: Tool, tmp_path: Path, part: str, value: object
) -> None:
    run = federation(tmp_path / "run", LOGISTIC, HOSPITALS).run(1)
    train = bundle(tmp_path / "bundle", LOGISTIC)
    out = fetched(run, train, tmp_path / "result", 1)
    statement = json.loads((out / "provenance.json").read_text())
    (statement if part in {"predicate", "subject"} else statement["predicate"])[part] = value
    (out / "provenance.json").write_text(json.dumps(statement))
    code = run_program(app, ["coefficients", str(out), "--train", str(tmp_path / "bundle")])
    assert code in {ExitCode.OK, ExitCode.DOCUMENT, ExitCode.TRUST, ExitCode.USAGE, ExitCode.NOT_FOUND}


@pytest.mark.parametrize("part", ["ridge", "examples_total", "population"])
def test_numbers_beyond_any_result_end_in_an_error_of_ours_or_in_no_table_of_errors(
    tool: Tool, tmp_path: Path, part: str
) -> None:
    run = federation(tmp_path / "run", LOGISTIC, HOSPITALS).run(1)
    train = bundle(tmp_path / "bundle", LOGISTIC)
    if part == "population":
        tensors = load_file(run.weights)
        save_file({**tensors, "population": np.full(2, 1e308)}, run.weights)
    out = fetched(run, train, tmp_path / "result", 1)
    statement = json.loads((out / "provenance.json").read_text())
    predicate = statement["predicate"]
    if part == "ridge":
        predicate["order"]["hyperparameters"]["ridge"] = 10**400
    if part == "examples_total":
        for each in predicate["rounds"]:
            each["examples_total"] = 10**400
    (out / "provenance.json").write_text(json.dumps(statement))
    if part == "examples_total":
        found = tool.json("coefficients", out, "--train", tmp_path / "bundle")
        assert any("is not told" in note for note in found["notes"])
    else:
        tool.error(ExitCode.DOCUMENT, "coefficients", out, "--train", tmp_path / "bundle")
