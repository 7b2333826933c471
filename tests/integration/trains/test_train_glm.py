"""The regressions in the real sandbox: three containers at once, each with its own hospital, through the guard and FedAvg.

Release rules: those of the examples, `policies/examples/glm.yaml` and `glm-cox.yaml`: differences in float32, cells of ten and more.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from glm_kit import ROOT, Federation, Hospital, Row, example_policy, lay_cohort, patients
from lifelines import CoxPHFitter
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tool_kit import Tool
from trains_kit import Yard, spec_of

from algorithms.glm.specification import read_model
from algorithms.glm.state import read_state
from station.sandbox.session import TrainSandbox, TrainSession
from station.sandbox.spec import ReplyLimits, TrainFailure, TrainReply, TrainRequest
from train_images.tool.folders import PackedTrain
from train_images.tool.initial_weights import make_weights
from train_images.tool.sandbox_home import sandbox_home

# lifelines calls pandas in a way that a later pandas will not take.
pytestmark = [pytest.mark.docker, pytest.mark.filterwarnings("ignore:Starting with pandas version 4")]


@dataclass
class Warm(Federation):
    """A federation whose hospitals answer from containers."""

    def sessions(self, given: Mapping[str, TrainSession]) -> "Warm":
        self.given = given
        return self

    def ask(self, hospital: Hospital) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays = self.folder / f"answer-{hospital.name}"
        reply = self.given[hospital.name].exchange(
            TrainRequest("train", 1, dict(self.settings), self.weights),
            ReplyLimits(arrays, 1 << 20, 1 << 16),
            timeout_s=60,
        )
        assert isinstance(reply, TrainReply), reply
        assert reply.arrays is not None
        return load_file(reply.arrays), dict(reply.metrics)


@contextmanager
def federated(
    train: PackedTrain, rows: Sequence[Sequence[Row]], folder: Path, **settings: float
) -> Iterator[Warm]:
    """One warm container for each hospital, of the packed image, and weights that the image made."""
    name = train.manifest.name
    with ExitStack() as stack:
        given: dict[str, TrainSession] = {}
        hospitals = []
        for place, some in enumerate(rows):
            home = stack.enter_context(sandbox_home(train))
            cohort = home.cohorts / "cohort"
            counts = lay_cohort(cohort, some, manifest=train.manifest)
            hospital = Hospital(f"hospital-{place}", cohort, counts)
            run_id = f"glm-{folder.name[-20:].replace('_', '-')}-{place}"
            session = TrainSandbox(home.launcher).start(spec_of(train, home, run_id))
            stack.callback(session.finish)
            given[hospital.name] = session
            hospitals.append(hospital)
        model = (ROOT / "train_images" / name / "model.json").read_text()
        defaults = {key: spec.default for key, spec in train.manifest.hyperparameters.items()}
        chosen = {**defaults, **settings}
        run = Warm(
            folder, json.loads(model), hospitals, example_policy(name), train.manifest, settings=chosen
        )
        made = make_weights(train, home, folder / "made-by-the-image")
        run.weights = made.path
        yield run.sessions(given)


def estimates(run: Federation, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients and standard errors of where the run ended."""
    columns = len(read_model(ROOT / "train_images" / name / "model.json").columns)
    found = read_state(load_file(run.weights), columns)
    errors = np.sqrt(np.diag(np.linalg.inv(found.sums.information * run.examples)))
    return found.coefficients, np.asarray(errors)


def of_the_profile(rows: Sequence[Row]) -> list[Row]:
    """Patients with the fields that the train asks for, and no other."""
    wanted = ("pneumonia", "age_years", "sex", "temperature_c", "crp_mg_l")
    return [{name: row[name] for name in wanted} for row in rows]


def test_the_shipped_logistic_regression_in_three_containers_is_the_pooled_one(
    yard: Yard, tool: Tool, tmp_path: Path
) -> None:
    rows = [of_the_profile(patients(*of, shift=shift)) for of, shift in (((11, 240), 0.0), ((12, 190), 0.4), ((13, 310), -0.3))]  # fmt: skip
    with federated(yard.packed(tool, "glm"), rows, tmp_path / "run") as run:
        run.run(7)
        found, errors = estimates(run, "glm")
    every = [row for some in rows for row in some]
    columns = np.array(
        [
            [1.0, row["age_years"] in {"60-69", "80-89"}, row["sex"] == "M", row["temperature_c"] - 37, (row["crp_mg_l"] - 50) / 50]
            for row in every
        ],
        np.float64,
    )  # fmt: skip
    fit = sm.Logit(np.array([row["pneumonia"] for row in every], np.float64), columns).fit(disp=0, tol=1e-14)
    assert found == pytest.approx(fit.params, abs=1e-9)
    assert errors == pytest.approx(fit.bse, abs=1e-9)


WEEKS = ("0-6", "7-13", "14-20", "21-27", "28+")


def after_a_ct(seed: int, count: int) -> list[Row]:
    """Made-up patients with COVID, in the bands that the profile shows."""
    random = np.random.default_rng(seed)
    made: list[Row] = []
    for _ in range(count):
        row: dict[str, Any] = {
            "age_years": str(random.choice(["40-49", "50-59", "60-69", "70-79"])),
            "sex": str(random.choice(["F", "M"])),
            "ct_severity_score": int(random.integers(0, 6)) * 5,
            "diabetes": bool(random.random() < 0.4),
            "cardiovascular_disease": bool(random.random() < 0.45),
        }
        hazard = 0.12 * np.exp(0.05 * row["ct_severity_score"] + 0.4 * row["diabetes"])
        until = int(random.exponential(1 / hazard))
        there = random.random() < 0.05
        row["icu_admission"] = bool(there or until < 5)
        row["icu_admission_days"] = "-7--1" if there else WEEKS[until] if until < 5 else None
        made.append(row)
    return made


def test_the_shipped_cox_regression_in_three_containers_is_lifelines_with_strata(
    yard: Yard, tool: Tool, tmp_path: Path
) -> None:
    rows = [after_a_ct(*of) for of in ((21, 260), (22, 330), (23, 290))]
    with federated(yard.packed(tool, "glm-cox"), rows, tmp_path / "run") as run:
        run.run(6)
        found, errors = estimates(run, "glm-cox")
        share = run.releases["hospital-0"].metrics["complete_share"]
    table = pd.DataFrame(
        [
            {
                "old": float(row["age_years"] in {"60-69", "70-79"}),
                "male": float(row["sex"] == "M"),
                "severity": (row["ct_severity_score"] - 10) / 5,
                "diabetes": float(row["diabetes"]),
                "vascular": float(row["cardiovascular_disease"]),
                "weeks": 1 + WEEKS.index(row["icu_admission_days"] or "28+"),
                "admitted": float(row["icu_admission"]),
                "hospital": place,
            }
            for place, some in enumerate(rows)
            for row in some
            # Who was there already is not at risk of coming.
            if row["icu_admission_days"] != "-7--1"
        ]
    )
    fit = CoxPHFitter().fit(table, "weeks", "admitted", strata=["hospital"], fit_options={"precision": 1e-12})
    names = ["old", "male", "severity", "diabetes", "vascular"]
    assert found == pytest.approx(fit.params_[names].to_numpy(), abs=1e-6)
    assert errors == pytest.approx(fit.standard_errors_[names].to_numpy(), abs=1e-6)
    assert share == pytest.approx((table["hospital"] == 0).sum() / 260, abs=0.005)


def test_a_hospital_with_small_cells_answers_a_declared_code_and_no_number(
    yard: Yard, tool: Tool, tmp_path: Path
) -> None:
    rows = [of_the_profile(patients(31, 40))]
    with federated(yard.packed(tool, "glm"), rows, tmp_path / "run") as run:
        session = run.given["hospital-0"]
        limits = ReplyLimits(tmp_path / "answer", 1 << 20, 1 << 16)
        request = TrainRequest("train", 1, dict(run.settings), run.weights)
        failure = session.exchange(request, limits, timeout_s=60)
        assert isinstance(failure, TrainFailure)
        assert failure.error_code == "CELL_TOO_SMALL"
        # The process stays: with a minimum that a policy for public data might grant, the same container answers.
        granted = TrainRequest(
            "train", 1, {**run.settings, "minimum_cell_count": 1, "minimum_joint_count": 1}, run.weights
        )
        assert isinstance(session.exchange(granted, limits, timeout_s=60), TrainReply)


def test_a_dry_run_on_made_up_radiographs_releases_its_sums(yard: Yard, tool: Tool) -> None:
    path = yard.packed(tool, "glm").path
    few = ("--set", "minimum_cell_count=3", "--set", "minimum_joint_count=3")
    found = tool.json("check", path, "--patients", 150, "--rounds", 3, *few)
    assert [message["outcome"] for message in found["messages"]] == ["released"] * 3
    assert found["messages"][2]["metrics"].keys() == {"complete_share", "largest_step"}
