"""Quartiles of each group from told histograms, over three hospitals, against numpy on all their rows together.

The shipped manifest of lung involvement: the station's guard, the orchestrator's pool, the command. Release rules: minimum cell count
10, counts not rounded, no noise; then rounding.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from told_kit import STATIONS, Tables, release_of, result_folder, rules_for, shipped
from tool_kit import Tool

from policies.manifest import TrainManifest
from train_images.told.reading import ToldResult, ToldTable, read_told
from train_images.told.statistics import Count, GroupQuartile, TableStatistics, statistics_of

KEY = "involved_by_icu"
EDGES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
Rows = dict[str, list[Any]]


@pytest.fixture(scope="module")
def manifest() -> TrainManifest:
    """The train's, with the one table that this is about."""
    whole = shipped("ct-lung-involvement")
    kept = tuple(item for item in whole.outputs.aggregates if item.key == KEY)
    assert len(kept) == 1
    return whole.model_copy(update={"outputs": whole.outputs.model_copy(update={"aggregates": kept})})


def patients(seed: int, count: int) -> tuple[Rows, Rows]:
    """What the station knows of each, and what the train answers: who came to intensive care has more disease."""
    random = np.random.default_rng([seed, 8])
    admitted = random.random(count) < 0.45
    # Some in every bin, for a bin of few would be hidden.
    share = np.where(random.random(count) < 0.5, random.random(count), random.beta(1 + 2 * admitted, 4))
    share = np.where(random.random(count) < 0.15, share / 10, share).round(6)
    known = {
        "icu_admission": [("false", "true")[int(each)] for each in admitted],
        "sex": [("F", "M")[each] for each in random.integers(0, 2, count)],
    }
    names = ("dark", "aerated", "ground_glass", "consolidation")
    stated: Rows = {f"{name}_share": [0.25] * count for name in names}
    stated |= {"involved_share": [float(each) for each in share], "lung_volume_ml": [4000.0] * count}
    stated |= {
        f"{band}_{third}": [0.1] * count
        for band in ("ground_glass", "consolidation", "involved")
        for third in ("apical", "middle", "basal")
    }
    return known, stated | {"coverage": ["whole"] * count}


def result(
    folder: Path, manifest: TrainManifest, sizes: tuple[int, ...], **rules: Any
) -> tuple[Path, TableStatistics, dict[str, np.ndarray[Any, Any]]]:
    """A result on disk, what is said of its table, and the shares of each group over all hospitals."""
    everybody = [patients(number, size) for number, size in enumerate(sizes)]
    permitted = rules_for(manifest, **rules)
    tables: dict[str, Tables] = {
        name: release_of(manifest, permitted, known, stated)
        for name, (known, stated) in zip(STATIONS, everybody, strict=True)
    }
    there = result_folder(folder, manifest, permitted.release, tables)
    (found,) = statistics_of(read_told(there))
    shares = np.array([share for _, stated in everybody for share in stated["involved_share"]])
    groups = np.array([group for known, _ in everybody for group in known["icu_admission"]])
    return there, found, {group: shares[groups == group] for group in ("false", "true")}


def test_the_quartiles_of_a_group_lie_in_the_bins_that_are_said(
    tmp_path: Path, manifest: TrainManifest, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, found, groups = result(tmp_path / "result", manifest, (700, 900, 800))
    told = {(each.column, each.line): each for each in found.quartiles}
    expected = {}
    for group, shares in groups.items():
        for line in ("0.25", "0.5", "0.75"):
            true = np.quantile(shares, float(line), method="inverted_cdf")
            place = int(np.searchsorted(EDGES, true, "right")) - 1
            expected[group, line] = GroupQuartile(group, line, EDGES[place], EDGES[place + 1])
    assert told == expected
    # Groups differ, so that it says something.
    assert told["false", "0.5"] != told["true", "0.5"]
    tool = Tool(capsys)
    (table,) = tool.json("statistics", folder)["tables"]
    assert {(each["column"], each["line"], each["low"]) for each in table["quartiles"]} == {
        (*key, each.low) for key, each in expected.items()
    }
    said = " ".join(tool("statistics", folder).split())
    assert "quartiles of involved_share by icu_admission" in said


def test_of_groups_with_hidden_bins_and_of_rounded_counts_none_is_told(
    tmp_path: Path, manifest: TrainManifest
) -> None:
    _, few, _ = result(tmp_path / "few", manifest, (700, 900, 150))
    assert {cell.patients for cell in few.pooled if isinstance(cell, Count)} > {None}
    assert few.quartiles == ()
    _, rounded, _ = result(tmp_path / "rounded", manifest, (700, 900, 800), count_rounding=10)
    assert rounded.pooled
    assert rounded.quartiles == ()


def test_a_group_is_told_where_another_is_not_and_who_lacks_the_number_counts_in_none() -> None:
    one = ((10, 3, 0), (30, None, 0), (0, 9, 0), (500, 500, 0))
    other = ((10, 3, 0), (14, 8, 0), (16, 9, 0), (0, 0, 0))
    lines, ends = ("0 to 1", "1 to 2", "2 to 3", "missing"), (0.0, 1.0, 2.0, 3.0)
    table = ToldTable("t", "count", "x", "g", lines, ("a", "b", "c"), ends, {"one": one, "other": other})
    (found,) = statistics_of(ToldResult("train 1", (table,), 1, noise=False))
    # Of a 20, 44 and 16 of 80: the 20th is the last of the first bin, the 60th of the second. Of c there is nobody.
    assert found.quartiles == tuple(
        GroupQuartile("a", line, low, low + 1) for line, low in (("0.25", 0.0), ("0.5", 1.0), ("0.75", 1.0))
    )
    (noisy,) = statistics_of(ToldResult("train 1", (table,), 1, noise=True))
    assert noisy.quartiles == ()
