"""A number that few differ in, within a category or beside another number: the sums tell it, and such a hospital is kept out.

Release rules: those of `policies/examples/glm.yaml`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from glm_kit import HOSPITALS, Federation, Row, federation
from safetensors.numpy import load_file

from algorithms.glm.errors import Code, GlmError
from algorithms.glm.state import read_state
from station.egress.release import Release

SEX = {"field": "sex", "groups": {"F": ["F"], "M": ["M"]}, "reference": "F"}
CRP, DAYS = {"field": "crp_mg_l", "per": 10}, {"field": "days"}
LINEAR: dict[str, Any] = {"family": "linear", "outcome": {"field": "temperature_c", "centre": 37}}


def hospital(*, men_apart: int = 20, both_apart: int = 20) -> list[dict[str, Any]]:
    """Forty women and forty men, of whom so many have a CRP other than 0; of whom so many were in hospital for days."""
    rows: list[dict[str, Any]] = []
    for number in range(80):
        sex, place = "FM"[number % 2], number // 2
        apart = place < (men_apart if sex == "M" else 20)
        stayed = place < both_apart or 20 <= place < 40 - both_apart
        rows.append(
            {
                "sex": sex,
                "temperature_c": 36 + place % 7 / 2,
                "crp_mg_l": 70 + 10 * (place % 9) if apart else 0,
                "days": 1 + place % 6 if stayed else 0,
            }
        )
    return rows


def run_of(folder: Path, rows: Sequence[Row], covariates: Sequence[dict[str, Any]], **settings: Any) -> Federation:  # fmt: skip
    return federation(folder, {**LINEAR, "covariates": covariates}, [rows, *HOSPITALS[1:]], **settings)


def refused(run: Federation) -> bool:
    try:
        run.ask(run.hospitals[0])
    except GlmError as error:
        return error.pht_error_code == Code.CELL_TOO_SMALL
    return False


def sums_of(run: Federation, columns: int) -> Any:
    """What the orchestrator works out from the first hospital's release: the information of its own patients."""
    release = run.guarded(run.hospitals[0], 1)
    assert isinstance(release, Release)
    assert release.arrays is not None
    delta = load_file(release.arrays.path)
    arrays = {name: each + delta[name].astype(np.float64) for name, each in load_file(run.weights).items()}
    return read_state(arrays, columns).sums.information * release.num_examples


def test_the_only_man_with_a_crp_is_read_from_the_sum_of_men_and_keeps_the_hospital_out(
    tmp_path: Path,
) -> None:
    rows = hospital(men_apart=1)
    # Twenty-one of eighty have a CRP: over all patients nobody stands alone.
    assert sum(row["crp_mg_l"] != 0 for row in rows) == 21
    told = sums_of(run_of(tmp_path / "told", rows, [SEX, CRP], minimum_cell_count=1), 3)
    assert 10 * told[1, 2] == pytest.approx(70, abs=1e-3)
    assert refused(run_of(tmp_path / "refused", rows, [SEX, CRP], minimum_cell_count=10))
    assert refused(run_of(tmp_path / "nine", hospital(men_apart=9), [SEX, CRP], minimum_cell_count=10))
    assert not refused(run_of(tmp_path / "ten", hospital(men_apart=10), [SEX, CRP], minimum_cell_count=10))
    # Where nobody stands apart, nobody is told of.
    assert not refused(run_of(tmp_path / "none", hospital(men_apart=0), [SEX, CRP], minimum_cell_count=10))


def test_the_few_in_whom_two_numbers_are_uncommon_keep_a_hospital_out(tmp_path: Path) -> None:
    rows = hospital(both_apart=1)
    both = [row["crp_mg_l"] * row["days"] for row in rows if row["crp_mg_l"] and row["days"]]
    assert len(both) == 2
    told = sums_of(run_of(tmp_path / "told", rows, [CRP, DAYS], minimum_cell_count=1), 3)
    assert 10 * told[1, 2] == pytest.approx(sum(both), abs=1e-3)
    assert refused(run_of(tmp_path / "refused", rows, [CRP, DAYS], minimum_cell_count=10))
    assert not refused(run_of(tmp_path / "twenty", hospital(both_apart=10), [CRP, DAYS], minimum_cell_count=10))  # fmt: skip


def test_the_outcome_is_such_a_number_too(tmp_path: Path) -> None:
    model = {"family": "poisson", "outcome": {"field": "days"}, "covariates": [SEX]}
    rows = [{**row, "days": row["days"] if row["sex"] == "F" else 0} for row in hospital()]
    rows[1]["days"] = 14
    run = federation(tmp_path, model, [rows, *HOSPITALS[1:]], minimum_cell_count=10)
    assert refused(run)
    rows[1]["days"] = 0
    assert not refused(federation(tmp_path / "none", model, [rows, *HOSPITALS[1:]], minimum_cell_count=10))
