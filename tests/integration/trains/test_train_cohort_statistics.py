"""The train of cohort statistics as a researcher tries it: packed without an image, checked without an engine."""

from pathlib import Path

from tool_kit import Tool
from trains_kit import TRAINS


def test_a_check_tells_counts_means_and_quartiles_without_an_engine(tool: Tool, tmp_path: Path) -> None:
    tool("pack", TRAINS / "cohort-statistics", tmp_path / "bundle")
    report = tool.json(
        "check", tmp_path / "bundle", "--patients", 400, "--engine", tmp_path / "no-engine.sock"
    )
    assert report["outcome"] == "released"
    (message,) = report["messages"]
    tables = message["tables"]
    # Whoever lacks a column stands in no table, so that all tables are of the same patients.
    everybody = sum(count for (count,) in tables["smokers"])
    assert 10 <= everybody <= report["patients"]["training"]
    for key in ("pneumonia_by_sex", "pneumonia_by_scanner", "views", "scanners"):
        assert sum(count for line in tables[key] for count in line) == everybody, key
    # All phantoms of a dry run are of one maker's scanner.
    assert sum(count > 0 for (count,) in tables["scanners"]) == 1
    patients, total, squares = (sum(line[place] for line in tables["temperature"]) for place in range(3))
    assert patients == everybody
    assert 35 < total / patients < 41
    assert squares / patients >= (total / patients) ** 2
    assert [low < high for low, high in tables["crp"]] == [True] * 3
