"""A model's performance over three hospitals against the rows themselves: the station's guard, the orchestrator's pool, the command.

Release rules: minimum cell count 10, counts not rounded, no noise. The truth is worked out pair by pair and patient by patient, and by
MONAI's and scipy's own.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.metrics import ROCAUCMetric
from scipy.stats import mannwhitneyu
from told_kit import STATIONS, release_of, result_folder, rules_for, shipped
from tool_kit import Tool

from policies.documents import digest_of
from policies.errors import ExitCode, NotFoundError, TrustError, UsageError, WireError
from policies.manifest import TrainManifest
from train_images.told.binned import area, settle
from train_images.told.intervals import Figure
from train_images.told.performance import GroupPerformance, TablePerformance, performance_of
from train_images.told.reading import ToldResult, ToldTable, read_told

EDGES = np.array([0.25, 0.5, 0.75])
Rows = dict[str, np.ndarray[Any, Any]]
MANIFEST = shipped("model-evaluation")
THRESHOLD = 0.5


def hospital(number: int, patients: int) -> Rows:
    """Scores that are worse and further off at one hospital than at the next; who made its scanners differs too."""
    random = np.random.default_rng([20261123, number])
    label = (random.random(patients) < 0.45 - 0.05 * number).astype(int)
    logit = (1.6 - 0.4 * number) * (label - 0.5) * 2 + random.normal(0.3 * number, 1.3, patients)
    return {
        "score": 1 / (1 + np.exp(-logit)),
        "label": label,
        "sex": random.choice(["F", "M"], patients),
        "manufacturer": random.choice(["philips", "siemens"] if number else ["philips"], patients),
        "view_position": random.choice(["AP", "PA"], patients),
    }


def tables_of(rows: Rows, manifest: TrainManifest = MANIFEST, **rules: Any) -> Any:
    stated = {
        "score": rows["score"].tolist(),
        "label": rows["label"].tolist(),
        "called": (rows["score"] >= THRESHOLD).astype(int).tolist(),
        "squared_error": ((rows["score"] - rows["label"]) ** 2).tolist(),
    }
    known = {name: rows[name].tolist() for name in ("sex", "manufacturer", "view_position")}
    return release_of(manifest, rules_for(manifest, **rules), known, stated)


def told(folder: Path, tables: Any, **options: Any) -> dict[str, TablePerformance]:
    release = rules_for(MANIFEST).release
    found = performance_of(read_told(result_folder(folder, MANIFEST, release, tables, **options)))
    return {each.table: each for each in found}


def group(found: dict[str, TablePerformance], table: str, name: str = "all") -> GroupPerformance:
    (one,) = [each for each in found[table].groups if each.group == name]
    return one


@pytest.fixture(scope="module")
def rows() -> dict[str, Rows]:
    return {name: hospital(number, 2000 + 1000 * number) for number, name in enumerate(STATIONS)}


@pytest.fixture(scope="module")
def released(rows: dict[str, Rows]) -> dict[str, Any]:
    return {name: tables_of(each) for name, each in rows.items()}


@pytest.fixture(scope="module")
def found(released: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, TablePerformance]:
    return told(tmp_path_factory.mktemp("result"), released)


def together(rows: dict[str, Rows]) -> Rows:
    return {name: np.concatenate([each[name] for each in rows.values()]) for name in rows["amstel"]}


def by_pairs(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The area and DeLong's variance, from every pair of patients."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(1).var(ddof=1) / len(positive) + wins.mean(0).var(ddof=1) / len(negative)
    return float(wins.mean()), float(variance)


def test_the_area_of_all_and_of_each_station_is_that_of_every_pair(
    found: dict[str, TablePerformance], rows: dict[str, Rows]
) -> None:
    one = group(found, "scores")
    assert one.pooled is not None
    for performance, truth in [
        (one.pooled, together(rows)),
        *((one.stations[name], rows[name]) for name in STATIONS),
    ]:
        bins = np.searchsorted(EDGES, truth["score"], "right")
        area, variance = by_pairs(bins, truth["label"])
        auc = performance.auc
        assert auc.value == pytest.approx(area, rel=1e-12)
        test = mannwhitneyu(bins[truth["label"] == 1], bins[truth["label"] == 0])
        assert auc.value == pytest.approx(
            test.statistic / (truth["label"].sum() * (1 - truth["label"]).sum())
        )
        # The interval is DeLong's, on the logit scale.
        assert auc.low is not None
        assert auc.high is not None
        half = (np.log(auc.high / (1 - auc.high)) - np.log(auc.low / (1 - auc.low))) / 2
        assert half == pytest.approx(1.959963984540054 * np.sqrt(variance) / (area * (1 - area)), rel=1e-9)
        # The area of the scores themselves, which never left, lies where it is said to for sure.
        metric = ROCAUCMetric()
        metric(torch.from_numpy(truth["score"])[:, None], torch.from_numpy(truth["label"])[:, None])
        assert auc.least is not None
        assert auc.least <= metric.aggregate() <= (auc.most or 0)
        assert (performance.positives, performance.negatives) == (
            truth["label"].sum(),
            (1 - truth["label"]).sum(),
        )


def test_pairs_within_one_hospital_are_weighed_by_their_number(
    found: dict[str, TablePerformance], rows: dict[str, Rows]
) -> None:
    pairs, areas = [], []
    for each in rows.values():
        pairs.append(int(each["label"].sum() * (1 - each["label"]).sum()))
        areas.append(by_pairs(np.searchsorted(EDGES, each["score"], "right"), each["label"])[0])
    within = group(found, "scores").within
    assert within is not None
    assert within.value == pytest.approx(np.average(areas, weights=pairs), rel=1e-12)
    assert within.low is not None
    assert within.low < within.value < (within.high or 0)


@pytest.mark.parametrize(
    ("table", "column", "names"),
    [
        ("scores_by_sex", "sex", ("F", "M")),
        ("scores_by_scanner", "manufacturer", ("philips", "siemens")),
        ("scores_by_view", "view_position", ("AP", "PA")),
    ],
)
def test_a_group_is_its_own_rows(
    found: dict[str, TablePerformance], rows: dict[str, Rows], table: str, column: str, names: tuple[str, ...]
) -> None:
    everybody, exact = together(rows), []
    for name in names:
        one = group(found, table, name).pooled
        inside = everybody[column] == name
        bins, label = np.searchsorted(EDGES, everybody["score"][inside], "right"), everybody["label"][inside]
        assert one is not None
        assert (one.positives, one.negatives) == (label.sum(), (1 - label).sum())
        area = by_pairs(bins, label)[0]
        if one.auc.value is None:
            # A small cell at one station: what the others tell, and the number of each class, still bound it narrowly.
            assert one.hidden_cells > 0
            assert one.auc.least is not None
            assert one.auc.least <= area <= (one.auc.most or 0)
            assert (one.auc.most or 1) - one.auc.least < 0.3
        else:
            assert one.auc.value == pytest.approx(area, rel=1e-12)
            exact.append(name)
    assert exact or table != "scores_by_scanner"


def test_confusion_counts_and_shares_are_those_of_the_rows(
    found: dict[str, TablePerformance], rows: dict[str, Rows]
) -> None:
    everybody = together(rows)
    pooled, ordered = group(found, "scores").pooled, group(found, "confusion").pooled
    assert pooled is not None
    assert ordered is not None
    assert [each.threshold for each in pooled.confusion] == EDGES.tolist()
    for each, threshold in [*zip(pooled.confusion, EDGES, strict=True), (ordered.confusion[0], THRESHOLD)]:
        called, label = everybody["score"] >= threshold, everybody["label"] == 1
        tp, fn = int((called & label).sum()), int((~called & label).sum())
        fp, tn = int((called & ~label).sum()), int((~called & ~label).sum())
        counts = (each.true_positives, each.false_negatives, each.false_positives, each.true_negatives)
        assert tuple(figure.value for figure in counts) == (tp, fn, fp, tn)
        assert each.sensitivity.value == tp / (tp + fn)
        assert each.specificity.value == tn / (tn + fp)
        assert each.positive_predictive_value.value == tp / (tp + fp)
        assert each.negative_predictive_value.value == tn / (tn + fn)


def test_calibration_is_that_of_the_rows(found: dict[str, TablePerformance], rows: dict[str, Rows]) -> None:
    everybody = together(rows)
    pooled = group(found, "scores").pooled
    assert pooled is not None
    assert pooled.calibration is not None
    bins = np.searchsorted(EDGES, everybody["score"], "right")
    error = 0.0
    for number, each in enumerate(pooled.calibration.bins):
        inside = bins == number
        assert each.patients == inside.sum()
        assert each.observed.value == pytest.approx(everybody["label"][inside].mean(), rel=1e-12)
        error += inside.mean() * abs(everybody["label"][inside].mean() - everybody["score"][inside].mean())
    brier = float(np.mean((everybody["score"] - everybody["label"]) ** 2))
    for figure, true in ((pooled.calibration.expected_error, error), (pooled.calibration.brier, brier)):
        assert figure.least is not None
        assert figure.least <= true <= (figure.most or 0)


def test_where_only_pooled_tables_are_told_the_figures_are_the_same(
    released: dict[str, Any], found: dict[str, TablePerformance], tmp_path: Path
) -> None:
    pooled = told(tmp_path, released, station_results=False)
    alone, together_ = group(pooled, "scores"), group(found, "scores")
    assert alone.stations == {}
    assert (alone.pooled_of, alone.within) == (3, None)
    assert alone.pooled == together_.pooled


# -- small cells are hidden ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few() -> dict[str, Rows]:
    return {name: hospital(number, 350 + 100 * number) for number, name in enumerate(STATIONS)}


@pytest.mark.parametrize("station_results", [True, False])
def test_with_hidden_cells_the_truth_lies_between_what_is_said(
    few: dict[str, Rows], tmp_path: Path, station_results: bool
) -> None:
    hiding = told(
        tmp_path, {name: tables_of(each) for name, each in few.items()}, station_results=station_results
    )
    one = group(hiding, "scores")
    assert one.pooled is not None
    assert one.pooled.hidden_cells > 0
    everybody = together(few)
    pairs = [(one.pooled, everybody), *((one.stations[name], few[name]) for name in one.stations)]
    for performance, truth in pairs:
        area = by_pairs(truth["score"], truth["label"])[0]
        if performance.hidden_cells:
            assert performance.auc.value is None
            assert performance.calibration is None
        assert performance.auc.least is not None
        assert performance.auc.least <= area <= (performance.auc.most or 0)
        for each in performance.confusion:
            called, label = truth["score"] >= (each.threshold or 0), truth["label"] == 1
            for figure, true in (
                (each.true_positives, (called & label).sum()),
                (each.false_positives, (called & ~label).sum()),
                (each.sensitivity, (called & label).sum() / label.sum()),
                (each.positive_predictive_value, (called & label).sum() / called.sum()),
            ):
                if figure.value is None:
                    assert figure.least is not None
                    assert figure.least <= true <= (figure.most or 0)
                else:
                    assert figure.value == pytest.approx(true)


def test_a_station_that_tells_no_total_is_left_out_by_name(few: dict[str, Rows], tmp_path: Path) -> None:
    tables = {name: dict(tables_of(each)) for name, each in few.items()}
    name = STATIONS[0]
    del tables[name]["labels"]
    one = group(told(tmp_path, tables), "scores")
    assert one.left_out == (name,)
    assert one.pooled_of == 2
    assert one.stations[name].positives is None


# -- what came from elsewhere ------------------------------------------------------------------------------------------


def test_a_document_that_is_not_the_provenances_is_not_read(released: dict[str, Any], tmp_path: Path) -> None:
    folder = result_folder(tmp_path / "result", MANIFEST, rules_for(MANIFEST).release, released)
    path = folder / "metrics.json"
    path.write_bytes(path.read_bytes().replace(b"amstel", b"amster"))
    with pytest.raises(TrustError, match="is not the file"):
        read_told(folder)
    with pytest.raises(NotFoundError, match="no result"):
        read_told(tmp_path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("tables", "scores", "ends"), [0, 0, 1]),
        (("rounds", 0, "tables", "evaluate", "amstel", "scores"), [[1, 2]]),
        (("rounds", 0, "tables", "evaluate", "amstel", "scores", 0), ["many", True, 1]),
        (("tables", "scores"), "scores"),
        (("rounds",), {}),
        (("tables", "scores", "measure"), "guess"),
        (("rounds", 0, "tables", "evaluate", "amstel", "scores", 0, 0), 10**400),
        (("rounds", 0, "tables", "evaluate", "amstel", "scores", 0, 0), 1e300),
        (("tables", "scores", "ends"), [0, 10**400]),
        (("counts",), {"rounding": float("inf")}),
        (
            ("tables", "scores"),
            {
                "key": "scores",
                "measure": "quantiles",
                "column": "score",
                "by": None,
                "lines": ["half"],
                "columns": ["low", "high"],
                "hidden": -1,
            },
        ),
    ],
)
def test_a_document_of_another_shape_is_refused(
    released: dict[str, Any], tmp_path: Path, path: tuple[Any, ...], value: object
) -> None:
    folder = result_folder(tmp_path / "result", MANIFEST, rules_for(MANIFEST).release, released)
    document = json.loads((folder / "metrics.json").read_bytes())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    data = json.dumps(document).encode()
    (folder / "metrics.json").write_bytes(data)
    subject = {"name": "metrics.json", "digest": {"sha256": digest_of(data).removeprefix("sha256:")}}
    (folder / "provenance.json").write_text(json.dumps({"subject": [subject]}))
    with pytest.raises((WireError, NotFoundError)):
        read_told(folder)


def test_scores_that_bins_do_not_tell_apart_have_no_interval() -> None:
    # Everybody in one bin: the area is a half, and its estimated variance 0, which is no certainty.
    same = settle((0, 12, 0), None), settle((0, 30, 0), None)
    assert same[0] is not None
    assert same[1] is not None
    assert area(*same) == (Figure(0.5, least=0.0, most=1.0), 0.0)


@pytest.mark.parametrize(("absent", "scored"), [(0, 18), (3, 15), (None, None)])
def test_patients_without_a_score_lie_in_no_hidden_bin(absent: int | None, scored: int | None) -> None:
    # Ten of eighteen with the finding score high; who has no score is told in a line of its own, or hidden there.
    cells = ((None, 4.0), (10.0, 20.0), (absent, 0.0))
    table = ToldTable(
        "s",
        "count",
        "score",
        "label",
        ("[0,0.5)", "[0.5,1]", "missing"),
        ("positive", "negative"),
        (0, 0.5, 1),
    )
    totals = ToldTable("l", "count", "label", None, ("positive", "negative"), ("patients",), ())
    told = ToldResult(
        "t",
        (replace(table, stations={"a": cells}), replace(totals, stations={"a": ((18.0,), (24.0,))})),
        1,
        noise=False,
    )
    (found,) = performance_of(told, "s")[0].groups
    alone = found.stations["a"]
    assert alone.positives == scored
    if scored is not None:
        assert alone.confusion[0].sensitivity.value == 10 / scored


def test_a_threshold_between_edges_and_a_table_that_is_not_there_are_said(
    released: dict[str, Any], tmp_path: Path
) -> None:
    result = read_told(result_folder(tmp_path / "result", MANIFEST, rules_for(MANIFEST).release, released))
    with pytest.raises(UsageError, match=r"0\.4 is no edge"):
        performance_of(result, "scores", 0.4)
    with pytest.raises(NotFoundError, match="called nothing"):
        performance_of(result, "nothing")


def test_the_command_says_it_to_people_and_to_programs(
    released: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    found: dict[str, TablePerformance],
) -> None:
    folder = result_folder(tmp_path / "result", MANIFEST, rules_for(MANIFEST).release, released)
    tool = Tool(capsys)
    document = tool.json("performance", folder, "--table", "scores", "--threshold", 0.25)
    pooled = document["tables"][0]["groups"][0]["pooled"]
    expected = group(found, "scores").pooled
    assert expected is not None
    assert pooled["auc"]["value"] == expected.auc.value
    assert [each["threshold"] for each in pooled["confusion"]] == [0.25]
    said = " ".join(tool("performance", folder).split())
    assert f"{expected.auc.value:.3f}" in said
    assert "calibration" in said
    tool("performance", folder, "--table", "nothing", code=ExitCode.NOT_FOUND)


@pytest.mark.parametrize(("rule", "says"), [({"count_rounding": 10}, "rounded to 10"), ({}, "")])
def test_figures_of_rounded_counts_are_not_said_to_be_sure(
    rows: dict[str, Rows], tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: dict[str, int], says: str
) -> None:
    tables = {name: tables_of(each, **rule) for name, each in rows.items()}
    release = rules_for(MANIFEST, **rule).release
    folder = result_folder(tmp_path / "result", MANIFEST, release, tables)
    said = " ".join(Tool(capsys)("performance", folder).split())
    assert says in said
    assert ("nor what is said to be sure" in said) == bool(rule)
