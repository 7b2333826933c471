"""Statistics over three hospitals against numpy on all their rows together: the station's guard, the orchestrator's pool, the command.

Release rules here: minimum cell count 10, the default rules of dominance, counts not rounded, no noise; then what rounding and noise
cost.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from told_kit import STATIONS, Tables, release_of, result_folder, rules_for, shipped
from tool_kit import Tool

from orchestrator.federation.strategies.tables import moments_of
from policies.manifest import TrainManifest
from train_images.told.reading import read_told
from train_images.told.statistics import Count, Mean, Quantile, TableStatistics, moments, statistics_of

SEXES, MAKERS = ("F", "M"), ("philips", "siemens", "canon")
Hospital = dict[str, list[Any]]


@pytest.fixture(scope="module")
def manifest() -> TrainManifest:
    return shipped("cohort-statistics")


@pytest.fixture(scope="module")
def hospitals() -> dict[str, Hospital]:
    """Patients of three hospitals, who differ: in how many have the finding, in age, and in who made the scanner."""
    found = {}
    for number, name in enumerate(STATIONS):
        random, patients = np.random.default_rng([20261123, number]), 500 + 150 * number
        finding = random.random(patients) < 0.3 + 0.15 * number
        fever = np.round((36.8 + 0.2 * number + 1.1 * finding + random.normal(0, 0.9, patients)) * 2) / 2
        found[name] = {
            "pneumonia": [int(each) for each in finding],
            "sex": [SEXES[each] for each in random.integers(0, 2, patients)],
            "age_years": [f"{10 * each}-{10 * each + 9}" for each in random.integers(3 + number, 7, patients)],
            "temperature_c": [float(each) for each in np.clip(fever, 34, 42)],
            "crp_mg_l": [float(10 * each) for each in random.integers(0, 12 + 4 * number, patients)],
            "smoker": [("false", "true")[each] for each in random.integers(0, 2, patients)],
            "manufacturer": [MAKERS[each] for each in random.integers(0, 1 + number, patients)],
            "view_position": [("AP", "PA")[each] for each in random.integers(0, 2, patients)],
        }  # fmt: skip
    return found


def together(hospitals: dict[str, Hospital], column: str) -> np.ndarray[Any, Any]:
    return np.array([value for hospital in hospitals.values() for value in hospital[column]])


def told(
    folder: Path, manifest: TrainManifest, tables: dict[str, Tables], **rules: Any
) -> dict[str, TableStatistics]:
    options = {name: rules.pop(name) for name in ("station_results",) if name in rules}
    release = rules_for(manifest, **rules).release
    return {
        each.table: each
        for each in statistics_of(read_told(result_folder(folder, manifest, release, tables, **options)))
    }


def released(manifest: TrainManifest, hospitals: dict[str, Hospital], **rules: Any) -> dict[str, Tables]:
    permitted = rules_for(manifest, **rules)
    return {name: release_of(manifest, permitted, hospital) for name, hospital in hospitals.items()}


@pytest.mark.parametrize("station_results", [True, False])
def test_means_and_variances_are_those_of_all_rows_together(
    tmp_path: Path, manifest: TrainManifest, hospitals: dict[str, Hospital], station_results: bool
) -> None:
    found = told(tmp_path, manifest, released(manifest, hospitals), station_results=station_results)
    values, finding = together(hospitals, "temperature_c"), together(hospitals, "pneumonia")
    for line in found["temperature"].pooled:
        assert isinstance(line, Mean)
        if line.line == "missing":
            assert line.patients == 0
            continue
        rows = values[finding == int(line.line)]
        assert line.patients == len(rows)
        assert line.mean == pytest.approx(np.mean(rows), rel=1e-12, abs=0)
        assert line.variance == pytest.approx(np.var(rows, ddof=1), rel=1e-12, abs=0)
        assert line.standard_deviation == pytest.approx(np.std(rows, ddof=1), rel=1e-12, abs=0)
        assert line.low is not None
        assert line.low < line.mean < (line.high or 0)


@pytest.mark.parametrize("station_results", [True, False])
def test_counts_and_crosstabs_are_those_of_all_rows_together(
    tmp_path: Path, manifest: TrainManifest, hospitals: dict[str, Hospital], station_results: bool
) -> None:
    found = told(tmp_path, manifest, released(manifest, hospitals), station_results=station_results)
    pairs = {
        "pneumonia_by_sex": ("pneumonia", "sex"),
        "pneumonia_by_scanner": ("pneumonia", "manufacturer"),
        "smokers": ("smoker", None),
        "scanners": ("manufacturer", None),
        "views": ("view_position", None),
        "age": ("age_years", None),
    }
    for key, (column, by) in pairs.items():
        rows = together(hospitals, column).astype(str)
        others = None if by is None else together(hospitals, by).astype(str)
        cells = found[key].pooled
        assert cells
        for cell in cells:
            assert isinstance(cell, Count)
            inside = rows == cell.line
            expected = int(inside.sum() if others is None else (inside & (others == cell.column)).sum())
            assert cell.patients == cell.at_least == expected, (key, cell)


def test_a_quantile_of_all_lies_where_it_is_said_to(
    tmp_path: Path, manifest: TrainManifest, hospitals: dict[str, Hospital]
) -> None:
    found = told(tmp_path, manifest, released(manifest, hospitals))
    values = together(hospitals, "crp_mg_l")
    for line in found["crp"].pooled:
        assert isinstance(line, Quantile)
        # The inverse of the empirical distribution function, as the station has it.
        true = np.quantile(values, float(line.line), method="inverted_cdf")
        assert line.low <= true < line.high
        assert line.high - line.low < 2000


def test_beside_a_count_of_the_same_bins_a_quantile_of_all_is_one_bin(
    tmp_path: Path, manifest: TrainManifest, hospitals: dict[str, Hospital]
) -> None:
    (quantiles,) = [item for item in manifest.outputs.aggregates if item.key == "crp"]
    edges = (30.0, 60.0, 90.0)
    count = quantiles.model_copy(
        update={"key": "crp_bins", "measure": "count", "probabilities": (), "edges": edges}
    )
    finer = manifest.outputs.model_copy(
        update={"aggregates": (quantiles.model_copy(update={"edges": edges}), count)}
    )
    changed = manifest.model_copy(update={"outputs": finer})
    found = told(tmp_path, changed, released(changed, hospitals))
    values = together(hospitals, "crp_mg_l")
    for line in found["crp"].pooled:
        assert isinstance(line, Quantile)
        true = np.quantile(values, float(line.line), method="inverted_cdf")
        ends = (0.0, *edges, 2000.0)
        place = int(np.searchsorted(edges, true, "right"))
        assert (line.low, line.high) == (ends[place], ends[place + 1])


def test_what_a_station_hides_is_said_to_be_open(
    tmp_path: Path, manifest: TrainManifest, hospitals: dict[str, Hospital]
) -> None:
    few = {name: dict(hospital) for name, hospital in hospitals.items()}
    makers = list(few["dommel"]["manufacturer"])
    few["dommel"]["manufacturer"] = ["philips" if each == "canon" else each for each in makers[:-4]] + [
        "canon"
    ] * 4
    found = told(tmp_path, manifest, released(manifest, few))
    cells = {cell.line: cell for cell in found["scanners"].pooled if isinstance(cell, Count)}
    assert cells["canon"].patients is None
    assert cells["canon"].at_least == few["berkel"]["manufacturer"].count("canon")
    shown = {cell.line: cell for cell in found["scanners"].stations["dommel"] if isinstance(cell, Count)}
    assert shown["canon"].patients is None
    assert shown["canon"].at_least == 0


# What exactness costs: the same patients under rules that blur.


def test_rounded_counts_tell_no_mean_and_are_off_by_half_the_base_per_station(
    tmp_path: Path, manifest: TrainManifest, hospitals: dict[str, Hospital]
) -> None:
    found = told(tmp_path, manifest, released(manifest, hospitals, count_rounding=10), count_rounding=10)
    makers = together(hospitals, "manufacturer")
    cells = [cell for cell in found["scanners"].pooled if isinstance(cell, Count)]
    assert cells
    off = [abs((cell.patients or 0) - int((makers == cell.line).sum())) for cell in cells]
    assert 0 < max(off) <= 5 * len(STATIONS)
    assert all(isinstance(line, Mean) and line.mean is None for line in found["temperature"].pooled)


def test_noise_leaves_counts_near_and_tells_no_mean(
    tmp_path: Path, manifest: TrainManifest, hospitals: dict[str, Hospital]
) -> None:
    noise = {"noise_multiplier": 5.0, "epsilon": 50.0, "delta": 1e-6}
    rules = {"differential_privacy": noise, "timing_quantum_s": 60.0}
    found = told(tmp_path, manifest, released(manifest, hospitals, **rules), **rules)
    views = together(hospitals, "view_position")
    cells = [cell for cell in found["views"].pooled if isinstance(cell, Count)]
    off = [abs((cell.patients or 0) - int((views == cell.line).sum())) for cell in cells]
    # Standard deviation 5 times the root of 2 for each of three stations, cut at zero: far within 120, and some of it is seen.
    assert 0 < max(off) < 120
    assert all(isinstance(line, Mean) and line.mean is None for line in found["temperature"].pooled)


@given(st.lists(st.integers(-(10**6), 10**6), min_size=2, max_size=60))
def test_the_formula_is_the_orchestrators_and_loses_nothing(values: list[int]) -> None:
    # Far from zero beside its spread: where sums of squares in floating point lose all digits.
    shifted = [10**7 + each for each in values]
    mean, variance = moments(
        len(shifted), Fraction(sum(shifted)), Fraction(sum(each**2 for each in shifted))
    ) or (0, 0)
    exact = Fraction(sum(shifted), len(shifted))
    assert mean == float(exact)
    assert variance == float(sum((each - exact) ** 2 for each in shifted) / (len(shifted) - 1))
    other = moments_of([len(shifted), float(sum(shifted)), float(sum(each**2 for each in shifted))])
    assert other is not None
    assert (other.mean, other.variance) == (mean, variance)


def test_the_command_says_it_to_people_and_to_programs(
    tmp_path: Path,
    manifest: TrainManifest,
    hospitals: dict[str, Hospital],
    capsys: pytest.CaptureFixture[str],
) -> None:
    release = rules_for(manifest).release
    folder = result_folder(tmp_path / "result", manifest, release, released(manifest, hospitals))
    tool = Tool(capsys)
    document = tool.json("statistics", folder)
    assert document["train"] == "cohort-statistics 0.1.0"
    (table,) = [each for each in document["tables"] if each["table"] == "temperature"]
    assert table["pooled"][0]["mean"] == pytest.approx(
        np.mean(together(hospitals, "temperature_c")[together(hospitals, "pneumonia") == 0]), rel=1e-12
    )
    said = " ".join(tool("statistics", folder).split())
    assert "temperature: sum of temperature_c by pneumonia, 3 stations" in said
